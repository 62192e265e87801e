"""Mistakes in losses, assigners, backbones and metrics of one's own: a line before step 1."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from small import small_config

from retinanet_jax.config import sections
from retinanet_jax.config.settings import ConfigError
from retinanet_jax.core.backbones import BACKBONES
from retinanet_jax.core.box_losses import BOX_LOSSES
from retinanet_jax.core.focal import CLASS_LOSSES, ClassLoss, focal_loss
from retinanet_jax.core.matching import ASSIGNERS, Assigner
from retinanet_jax.core.targets import NEGATIVE
from retinanet_jax.training.evaluation import METRICS
from retinanet_jax.training.run import train_and_evaluate


class Strides(nn.Module):
    """Levels by number, each with its stride."""

    strides: tuple[tuple[int, int], ...]

    @nn.compact
    def __call__(self, images, train):
        return {
            level: nn.avg_pool(images, (stride, stride), (stride, stride), "SAME")
            for level, stride in self.strides
        }


def softmax_loss(logits, targets, focal):
    return -jax.nn.log_softmax(logits) * targets


def by_class(logits, targets, focal):
    return jnp.arange(5.0) * focal_loss(logits, targets, gamma=focal.gamma)


FIELDS = {
    "backbone": ("model__backbone", BACKBONES),
    "class": ("loss__classification", CLASS_LOSSES),
    "box": ("loss__box", BOX_LOSSES),
    "assigner": ("matching__assigner", ASSIGNERS),
    "metric": ("evaluation__metric", METRICS),
}
WRONG = [
    (
        "class",
        softmax_loss,
        "loss.classification: the entry 'mine' is a function; write ClassLoss",
    ),
    (
        "class",
        ClassLoss(lambda x, y, f: jnp.sum(x)),
        r"loss.classification: 'mine' returned float32",
    ),
    ("class", ClassLoss(lambda x, y, f: x.sum(axis=-1)), r"one for a class of an anchor"),
    ("class", ClassLoss(softmax_loss, elementwise=True), "depends on other logits or on the class"),
    ("class", ClassLoss(by_class, elementwise=True), "leave out elementwise=True"),
    ("box", lambda a, b: jnp.abs(a - b), r"loss.box: 'mine' returned float32\[6, 4\]"),
    ("assigner", lambda image, c: None, "the entry 'mine' is a function; write Assigner"),
    (
        "assigner",
        Assigner(lambda image, config: jnp.zeros(len(image.anchors))),
        r"matching.assigner: 'mine' returned float32.*NEGATIVE or IGNORE, int32",
    ),
    ("assigner", Assigner(lambda image, config: jnp.int32([NEGATIVE])), r"returned int32\[1\]"),
    ("backbone", lambda config: Strides(((4, 16), (5, 32))), "no features of level 3.*it has 4, 5"),
    ("backbone", lambda config: Strides(((3, 16),)), r"\(1, 6, 10, 3\) as level 3 .* must be 8"),
    ("metric", lambda *_: {"AP": 0.5}, "evaluation.metric: 'mine' returned .*without detections"),
    ("metric", lambda *_: ({}, {}), "at least one"),
    ("metric", lambda *_: ({"AP": None}, {}), "return numbers by name"),
]


@pytest.mark.parametrize(("kind", "entry", "message"), WRONG)
def test_a_wrong_addition_is_named_before_the_first_step(
    kind, entry, message, monkeypatch, tmp_path
):
    field, table = FIELDS[kind]
    monkeypatch.setitem(table, "mine", entry)
    monkeypatch.setattr(sections, "METRICS", [*sections.METRICS, "mine"])
    with pytest.raises(ConfigError, match=message):
        train_and_evaluate(small_config(**{field: "mine"}), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_errors_inside_an_addition_are_raised_as_they_are(monkeypatch, tmp_path):
    def fails(logits, targets, focal):
        raise ZeroDivisionError("my own")

    monkeypatch.setitem(CLASS_LOSSES, "mine", ClassLoss(fails))
    with pytest.raises(ZeroDivisionError, match="my own"):
        train_and_evaluate(small_config(loss__classification="mine"), tmp_path)
