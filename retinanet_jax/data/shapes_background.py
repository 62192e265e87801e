"""Textured backgrounds of the built-in dataset, in muted colours, so that shapes stand out."""

import cv2
import numpy as np
from jaxtyping import Float


def textured_ground(rng: np.random.Generator, size: tuple[int, int]) -> Float[np.ndarray, "3 h w"]:
    """Returns two muted colours mixed by a random pattern, with grain."""
    middle = (rng.uniform(50, 205) + rng.uniform(-18, 18, (3, 1, 1))).astype(np.float32)
    offset = (rng.uniform(-40, 40) + rng.uniform(-8, 8, (3, 1, 1))).astype(np.float32)
    pattern = _PATTERNS[rng.integers(len(_PATTERNS))](rng, size)
    grain = (rng.random(size, np.float32) * 2 - 1) * np.float32(rng.uniform(0, 18))
    image = pattern * offset + middle
    image += grain
    return np.clip(image, 0, 255, out=image)


def slope(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Rises from -1 to 1 at most over the image, in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    rise = np.array([np.sin(angle), np.cos(angle)]) * np.sqrt(2) / size
    ys, xs = (np.arange(n, dtype=np.float32) - n / 2 for n in size)
    return ys[:, None] * np.float32(rise[0]) + xs * np.float32(rise[1])


def _stripes(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A sine in a random direction, 3 pixels to half an image long, soft or sharp."""
    frequency = 2 * np.pi * np.exp(-rng.uniform(np.log(3), np.log(min(size) / 2)))
    angle, phase = rng.uniform(0, 2 * np.pi, 2)
    ys = (np.arange(size[0]) * (frequency * np.sin(angle)) + phase).astype(np.float32)
    xs = (np.arange(size[1]) * (frequency * np.cos(angle))).astype(np.float32)
    return np.clip(np.sin(ys[:, None] + xs) * np.float32(rng.choice([1, 4])), -1, 1)


def _plaid(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return (_stripes(rng, size) + _stripes(rng, size)) / 2


def _clouds(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Noise whose cells are a third to a thirtieth of the image."""
    cells = int(rng.integers(3, 31))
    noise = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC)


def _checks(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return _stripes(rng, size) * _stripes(rng, size)


_PATTERNS = (slope, _stripes, _plaid, _clouds, _checks)
