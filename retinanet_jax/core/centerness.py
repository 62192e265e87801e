"""The centre-ness branch: how close an anchor is to the middle of its object.

FCOS (Tian et al., arXiv 1904.01355, section 3.3) adds an output of one value to a head, and
multiplies the class scores by it, so that boxes predicted from the edge of an object rank lower in
NMS. ATSS (arXiv 1912.02424) adopts it for anchors, in the box head. In their code, both also weight
the box losses by it; here, all positives count equally.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from retinanet_jax.core.arrays import ArrayLike
from retinanet_jax.core.boxes import side_distances
from retinanet_jax.core.focal import quality_focal_loss


def centerness(
    anchors: Float[ArrayLike, "*#b 4"], gt_boxes: Float[ArrayLike, "*#b 4"]
) -> Float[Array, "*b"]:
    """Returns the centre-ness of anchors in their boxes, equation 3 of FCOS.

        sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b))

    where l, r, t, b are the distances of the anchor's centre from the left, right, upper and lower
    side of the box.

    Args:
      anchors: anchors, xyxy pixels.
      gt_boxes: boxes of their objects, in the same pixels.

    Returns:
      Values in [0, 1]: 1 in the middle, 0 on the sides and outside.
    """
    first, second = jnp.split(side_distances(anchors, gt_boxes), 2, axis=-1)
    near, far = jnp.minimum(first, second), jnp.maximum(first, second)
    shares = jnp.maximum(near, 0) / jnp.where(far > 0, far, 1)
    return jnp.sqrt(shares[..., 0] * shares[..., 1])


def centerness_losses(
    logits: Float[ArrayLike, "*b n"],
    anchors: Float[ArrayLike, "n 4"],
    gt_boxes: Float[ArrayLike, "*b n 4"],
) -> Float[Array, "*b n"]:
    """Computes the binary cross entropy of the centre-ness, as if all anchors were positive."""
    # At gamma 0, the quality focal loss is cross entropy with a target between 0 and 1.
    return quality_focal_loss(logits, centerness(anchors, gt_boxes), gamma=0.0)


def class_scores(
    class_logits: Float[ArrayLike, "*b k"], centerness_logits: Float[ArrayLike, "*b"]
) -> Float[Array, "*b k"]:
    """Returns sqrt(class probability * centre-ness), the scores by which detections are ranked.

    The first version of FCOS uses the product. Its authors' later code, and that of ATSS, take the
    root: the order is the same, and scores have the scale of a probability, so thresholds keep
    their meaning. Their code compares only the class probability with the threshold; here, the
    score is compared, as for every other network.
    """
    probabilities = jax.nn.sigmoid(jnp.asarray(class_logits, jnp.float32))
    return jnp.sqrt(probabilities * jax.nn.sigmoid(centerness_logits)[..., None])
