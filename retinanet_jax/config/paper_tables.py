"""The paper's ablations as data: the settings and the published numbers of each table.

Lin et al. 2017 (arXiv 1708.02002), Tables 1a to 1e, 2 and 3, and section 5.1 on the prior. A trial
is the base config of a table (paper_base.py) with the settings of a row. `retinanet-jax sweep
--table=1b:small` runs all of them; in Python:

    for row in TABLES["1b"].rows:
        config = base_config("1b", "small")
        config.update_from_flattened_dict(row.settings_of("small"))

The numbers are on COCO minival, those of Tables 1e and 2 on test-dev. Neither is val2017, but
numbers on them differ little.

Trials that differ only in gamma, alpha and star_beta share one compiled step, which takes them as
arguments (core/focal.py, FocalParams).
"""

from typing import Any, NamedTuple

Settings = dict[str, Any]


class Row(NamedTuple):
    """A trial and its published numbers.

    Attributes:
        name: name of the row, as in the paper.
        settings: {'section.field': value}, applied to the table's base.
        ap, ap50, ap75: published results in percent; None if the paper has none.
        also: further numbers by name; 'ms' is the time per image on an M40 GPU.
        small: replaces `settings` in small runs; None: the same settings.
    """

    name: str
    settings: Settings
    ap: float | None
    ap50: float | None = None
    ap75: float | None = None
    also: dict[str, float] = {}  # noqa: RUF012 (never written to)
    small: Settings | None = None

    def settings_of(self, variant: str) -> Settings:
        """Returns the settings of the row in a variant of the table, '' or 'small'."""
        return self.settings if variant == "" or self.small is None else self.small


class Table(NamedTuple):
    """One table of the paper.

    Attributes:
        title: what the table varies.
        split: the COCO split of the paper's numbers.
        base: settings of all trials, applied to those of all tables (paper_base.py).
        rows: the trials.
        small: further settings of small runs, applied after `base`.
    """

    title: str
    split: str
    base: Settings
    rows: tuple[Row, ...]
    small: Settings = {}  # noqa: RUF012 (never written to)


def _alpha(alpha: float, *numbers: float) -> Row:
    return Row(f"alpha {alpha:g}", {"loss.alpha": alpha}, *numbers)


def _gamma(gamma: float | int, alpha: float, *numbers: float) -> Row:
    settings = {"loss.gamma": gamma, "loss.alpha": alpha}
    return Row(f"gamma {gamma:g}, alpha {alpha:g}", settings, *numbers)


def _anchors(scales: int, ratios: int, *numbers: float) -> Row:
    """Section 5.2: 1 to 4 scales per octave; square anchors, or three aspect ratios."""
    settings = {
        "anchors.scales": tuple(2.0 ** (i / scales) for i in range(scales)),
        "anchors.ratios": (1.0,) if ratios == 1 else (0.5, 1.0, 2.0),
    }
    name = f"{scales} {'scale' if scales == 1 else 'scales'}, "
    name += f"{ratios} {'ratio' if ratios == 1 else 'ratios'}"
    return Row(name, settings, *numbers)


def _ohem(batch: int, nms: float, *numbers: float, ratio: int = 0) -> Row:
    settings = {
        "loss.classification": "cross_entropy",
        "loss.alpha": "none",
        "loss.hard_examples": batch,
        "loss.hard_examples_iou": nms,
        "loss.negatives_per_positive": ratio or "none",
    }
    return Row(f"OHEM {'1:3 ' if ratio else ''}{batch}, nms {nms:g}", settings, *numbers)


_SMALL_BACKBONES = {50: "resnet18", 101: "resnet34"}


def _size(depth: int, side: int, ap: float, milliseconds: int) -> Row:
    return Row(
        f"ResNet-{depth}, {side} pixels",
        {
            "model.backbone": f"resnet{depth}",
            "pipeline.min_side": side,
            "pipeline.max_side": side * 5 // 3,
        },
        ap,
        also={"ms": milliseconds},
        small={
            "model.backbone": _SMALL_BACKBONES[depth],
            "pipeline.min_side": side * 96 // 600,
            "pipeline.max_side": side * 96 // 600,
        },
    )


_R101 = {"model.backbone": "resnet101"}

TABLES = {
    "1a": Table(
        "cross entropy weighted by alpha",
        "minival",
        {"loss.gamma": 0.0, "loss.alpha": 0.5},
        (
            _alpha(0.10, 0.0, 0.0, 0.0),
            _alpha(0.25, 10.8, 16.0, 11.7),
            _alpha(0.50, 30.2, 46.7, 32.8),
            _alpha(0.75, 31.1, 49.4, 33.0),
            _alpha(0.90, 30.8, 49.7, 32.3),
            _alpha(0.99, 28.7, 47.4, 29.9),
            _alpha(0.999, 25.1, 41.7, 26.1),
        ),
    ),
    "1b": Table(
        "focal loss over gamma, each with the best alpha",
        "minival",
        {},
        (
            _gamma(0, 0.75, 31.1, 49.4, 33.0),
            _gamma(0.1, 0.75, 31.4, 49.9, 33.1),
            _gamma(0.2, 0.75, 31.9, 50.7, 33.4),
            _gamma(0.5, 0.50, 32.9, 51.7, 35.2),
            _gamma(1, 0.25, 33.7, 52.0, 36.2),
            _gamma(2, 0.25, 34.0, 52.5, 36.5),
            _gamma(5, 0.25, 32.2, 49.6, 34.8),
        ),
    ),
    "1c": Table(
        "anchors: scales and aspect ratios",
        "minival",
        {},
        (
            _anchors(1, 1, 30.3, 49.0, 31.8),
            _anchors(2, 1, 31.9, 50.0, 34.0),
            _anchors(3, 1, 31.8, 49.4, 33.7),
            _anchors(1, 3, 32.4, 52.3, 33.9),
            _anchors(2, 3, 34.2, 53.1, 36.5),
            _anchors(3, 3, 34.0, 52.5, 36.5),
            _anchors(4, 3, 33.8, 52.1, 36.2),
        ),
    ),
    "1d": Table(
        "focal loss and hard example mining",
        "minival",
        _R101,
        (
            _ohem(128, 0.7, 31.1, 47.2, 33.2),
            _ohem(256, 0.7, 31.8, 48.8, 33.9),
            _ohem(512, 0.7, 30.6, 47.0, 32.6),
            _ohem(128, 0.5, 32.8, 50.3, 35.1),
            _ohem(256, 0.5, 31.0, 47.4, 33.0),
            _ohem(512, 0.5, 27.6, 42.0, 29.2),
            _ohem(128, 0.5, 31.1, 47.2, 33.2, ratio=3),
            _ohem(256, 0.5, 28.3, 42.4, 30.3, ratio=3),
            _ohem(512, 0.5, 24.0, 35.5, 25.8, ratio=3),
            Row("focal loss", {}, 36.0, 54.9, 38.7),
        ),
    ),
    "1e": Table(
        "depth and size of the images",
        "test-dev",
        {},
        (
            _size(50, 400, 30.5, 64),
            _size(50, 500, 32.5, 72),
            _size(50, 600, 34.3, 98),
            _size(50, 700, 35.1, 121),
            _size(50, 800, 35.7, 153),
            _size(101, 400, 31.9, 81),
            _size(101, 500, 34.4, 90),
            _size(101, 600, 36.0, 122),
            _size(101, 700, 37.1, 154),
            _size(101, 800, 37.8, 198),
        ),
    ),
    # The paper does not give the range of the jitter; this is detectron2's.
    "2": Table(
        "1.5 times the schedule with scale jitter, 800 pixels",
        "test-dev",
        _R101
        | {
            "pipeline.min_side": 800,
            "pipeline.max_side": 1333,
            "augmentation.scales": tuple(range(640, 801, 32)),
            "train.steps": 135_000,
        },
        (
            Row(
                "ResNet-101",
                {"model.backbone": "resnet101"},
                39.1,
                59.1,
                42.3,
                {"APs": 21.8, "APm": 42.7, "APl": 50.2},
                {"model.backbone": "resnet18"},
            ),
            Row(
                "ResNeXt-101",
                {"model.backbone": "resnext101_32x8d"},
                40.8,
                61.1,
                44.1,
                {"APs": 24.1, "APm": 44.2, "APl": 51.2},
                {"model.backbone": "resnext50_32x4d"},
            ),
        ),
        small={"augmentation.scales": (72, 80, 88, 96), "train.steps": 600},
    ),
    "3": Table(
        "the alternative loss FL*, appendix A",
        "minival",
        {},
        (
            _gamma(0, 0.75, 31.1, 49.4, 33.0),
            _gamma(2, 0.25, 34.0, 52.5, 36.5),
            Row(
                "FL* gamma 2, beta 1",
                {"loss.classification": "focal_star", "loss.gamma": 2.0, "loss.star_beta": 1.0},
                33.8,
                52.7,
                36.3,
            ),
            Row(
                "FL* gamma 4, beta 0",
                {"loss.classification": "focal_star", "loss.gamma": 4.0, "loss.star_beta": 0.0},
                33.9,
                51.8,
                36.4,
            ),
        ),
    ),
    "prior": Table(
        "the prior pi under cross entropy (section 5.1): without it training diverges",
        "minival",
        {"loss.gamma": 0.0, "loss.alpha": 0.5},
        (
            Row("no prior", {"model.prior": 0.5}, None),
            Row("prior .01", {"model.prior": 0.01}, 30.2, 46.7, 32.8),
        ),
    ),
}
