"""Colour jitter as one affine map of RGB: brightness, contrast, saturation and hue.

Sources: ColorJitter of torchvision and the photometric distortions of SSD (Liu et al. 2016, arXiv
1512.02325). Unlike torchvision, hue rotates in the YIQ plane instead of HSV, which keeps the luma
and is linear; and values are clipped once, at the end, so the order does not matter and is not
drawn.
"""

import numpy as np
from jaxtyping import Float

# RGB to YIQ (NTSC 1953): luma, and two rows of chroma whose sums are 0.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = np.linalg.inv(_YIQ)


def color_matrix(
    mean: Float[np.ndarray, "3"],
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
) -> Float[np.ndarray, "3 4"]:
    """Returns the float32 matrix [A, o] of the map x -> A x + o on RGB.

    It is the identity for the factors 1, 1, 1 and hue 0.

    Args:
      mean: RGB colour of the whole image; its luma is what contrast draws away from.
      brightness: factor on all channels.
      contrast: factor on the distance from the mean luma.
      saturation: factor on the chroma; 0 is grey.
      hue: turns around the grey axis; a third takes red to about green.
    """
    angle = -2 * np.pi * hue
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    chroma = _FROM_YIQ[:, 1:] @ (saturation * turn - np.eye(2)) @ _YIQ[1:]
    linear = brightness * contrast * (np.eye(3) + chroma)
    offset = brightness * (1 - contrast) * (_YIQ[0] @ mean)
    return np.column_stack([linear, np.full(3, offset)]).astype(np.float32)
