"""Sections of the page on the anchors: how they cover the boxes, and the ones that were fitted."""

from collections.abc import Sequence

import numpy as np

from retinanet_jax.config.settings import Config
from retinanet_jax.core.anchors import AnchorConfig, cell_anchors
from retinanet_jax.data.anchor_coverage import STATES, best_anchor
from retinanet_jax.data.object_table import SIZES, box_sides
from retinanet_jax.data.pipeline import transforms
from retinanet_jax.reports.html.axes import Axis, octaves
from retinanet_jax.reports.html.charts import bar, histogram, scatter
from retinanet_jax.reports.html.document import table
from retinanet_jax.reports.html.markup import TIMES, Html, join, tag
from retinanet_jax.reports.inspection.fit_anchors import (
    Covered,
    Fit,
    as_flags,
    as_python,
    fit_anchors,
)
from retinanet_jax.reports.inspection.inspection_images import anchor_crop
from retinanet_jax.reports.inspection.split_statistics import Split, count_levels

MAX_POINTS = 1500  # in the scatter plot
CROPS = (6, 6, 12)  # images of boxes in each of STATES


def anchors_section(split: Split, config: Config) -> Html:
    """How the anchors cover the boxes of a split: shares, charts, levels, images."""
    if not len(split.objects.labels):
        return tag("p", "There is no object that anchors could cover.")
    matching, iou = config.matching, split.coverage.iou
    low, high = matching.negative_iou, matching.positive_iou
    explained = (
        f"Boxes of {split.name} as the network sees them, without random augmentation; crowds do "
        "not count. In the images the best anchor of all is dashed."
    )
    thresholds = [(value, f"{value:g}") for value in sorted({low, high})]
    iou_axis = Axis(0.0, 1.0, "best IoU of a box over all anchors", log=False)
    shares = histogram(iou_axis, [(split.name, iou)], bins=40, marks=thresholds)
    beside = tag("div", shares, _size_table(split, config))
    return join(
        [
            tag("p", explained, class_="soft"),
            tag("div", _tiles(split, config), class_="tiles"),
            tag("div", _shape_chart(split, config), beside, class_="charts"),
            tag("h3", "Levels"),
            _level_table(split, config),
            _crops(split, config),
        ]
    )


def _tiles(split: Split, config: Config) -> list[Html]:
    low, high = config.matching.negative_iou, config.matching.positive_iou
    texts = (
        f"best IoU of {high:g} or more: anchors are trained on them",
        f"{low:g} to {high:g}: their best anchor is ignored, but for a low-quality match",
        f"below {low:g}: no anchor; all are background, but for a low-quality match",
    )
    shares = _shares(split.coverage.states(config.matching))
    return [
        tag("div", tag("b", f"{share:.1%}"), text, class_=f"tile {state}")
        for share, text, state in zip(shares, texts, STATES, strict=True)
    ]


def _shares(states: np.ndarray) -> list[float]:
    counts = np.bincount(states, minlength=len(STATES))
    return (counts / max(1, len(states))).tolist()


def _size_table(split: Split, config: Config) -> Html:
    size_classes, states = split.objects.size_classes, split.coverage.states(config.matching)
    rows = []
    for place, size in enumerate(SIZES):
        here = states[size_classes == place]
        shown = [f"{share:.1%}" for share in _shares(here)] if len(here) else ["", "", ""]
        rows.append((size, f"{len(here):,}", bar(_shares(here), STATES), *shown))
    low, high = config.matching.negative_iou, config.matching.positive_iou
    return table(("objects", "", "", f"IoU ≥ {high:g}", "between", f"< {low:g}"), rows)


def _shape_chart(split: Split, config: Config) -> Html:
    """Width against height of boxes, by how they are covered, and the shapes of the anchors."""
    step = max(1, -(-len(split.objects.labels) // MAX_POINTS))
    sides = box_sides(split.fitted.boxes)[::step]
    states = split.coverage.states(config.matching)[::step]
    low, high = config.matching.negative_iou, config.matching.positive_iou
    names = (f"best IoU ≥ {high:g}", "between", f"< {low:g}")
    groups = [(name, sides[states == state]) for state, name in enumerate(names)]
    anchors = config.anchors
    cells = np.concatenate([cell_anchors(level, anchors) for level in anchors.levels])
    shapes = box_sides(cells)
    # Around the boxes and the finest level: beyond, anchors show nothing.
    shown = np.concatenate([sides, shapes[: anchors.anchors_per_location]])
    axis = octaves(shown, "width of boxes, px")
    shapes = shapes[((shapes >= axis.low) & (shapes <= axis.high)).all(axis=1)]
    return scatter(axis, axis._replace(title="height"), groups, shapes)


def _level_table(split: Split, config: Config) -> Html:
    rows = []
    for count in count_levels(split, config):
        sides = [config.anchors.size * scale * 2**count.level for scale in config.anchors.scales]
        named = ", ".join(f"{side:.0f}" for side in sides)
        means = (f"{count.anchors:,.0f}", f"{count.positive:.1f}", f"{count.ignored:.1f}")
        rows.append((f"P{count.level}", 2**count.level, named, *means, f"{count.boxes:.1%}"))
    head = ("level", "stride", "anchor sides, px", "anchors", "positive", "ignored", "best boxes")
    explained = (
        "Anchors of an image in the mean, as matching assigns them; and the share of the boxes "
        "whose best anchor lies on the level."
    )
    return join([table(head, rows), tag("p", explained, class_="soft")])


def _crops(split: Split, config: Config) -> Html:
    """Boxes of each state with their best anchors, the worst state first."""
    low, high = config.matching.negative_iou, config.matching.positive_iou
    headings = (
        f"Well covered: {high:g} and more",
        f"In between: {low:g} to {high:g}",
        f"Worst covered: best IoU below {low:g}",
    )
    order = np.argsort(split.coverage.iou, kind="stable")
    states = split.coverage.states(config.matching)[order]
    parts = []
    for state in reversed(range(len(STATES))):
        places = order[states == state]
        if STATES[state] == "uncovered":
            # The worst of each image, so that one bad image does not fill the page.
            _, first = np.unique(split.objects.image[places], return_index=True)
            places = places[np.sort(first)]
        else:
            places = places[:: max(1, len(places) // CROPS[state])]
        crops = [_crop(split, place, config) for place in places[: CROPS[state]].tolist()]
        if crops:
            parts += [tag("h3", headings[state]), tag("div", crops, class_="images crops")]
    return join(parts)


def _crop(split: Split, place: int, config: Config) -> Html:
    """One box, by its place in `split.objects`, in its surroundings."""
    objects, coverage = split.objects, split.coverage
    image = objects.image[place]
    example = split.dataset.source[int(objects.numbers[image])]
    height, width = split.fitted.sizes[image].tolist()
    picture = transforms.resize(example, (height, width)).image
    box, canvas = split.fitted.boxes[place], tuple(split.fitted.canvases[image].tolist())
    level, shape = int(coverage.level[place]), int(coverage.shape[place])
    anchor = best_anchor(box, canvas, level, shape, config.anchors)
    label, names = int(objects.labels[place]), split.dataset.categories.names
    x1, y1, x2, y2 = box.tolist()
    facts = (
        names[label],
        f"{x2 - x1:.0f}{TIMES}{y2 - y1:.0f} px",
        f"IoU {coverage.iou[place]:.2f} on P{config.anchors.levels[level]}",
        f"image {example.image_id}",
    )
    crop = anchor_crop(picture, box, label, anchor, names)
    return tag("figure", crop, tag("figcaption", " · ".join(facts)))


def fit_section(split: Split, config: Config) -> Html:
    """The fitted anchors as lines to copy, and what they are worth on both halves."""
    if len(np.unique(split.objects.image)) < 2:
        return tag("p", "There are too few images with objects to fit anchors to.")
    fit, present = fit_anchors(split.objects, config), config.anchors
    if fit.config == present:
        text = (
            "The configured anchors do as well as the best that were found: "
            f"{fit.held_out_before.positive:.1%} of the boxes have an IoU of "
            f"{config.matching.positive_iou:g} or more."
        )
        return tag("p", text)
    text = "Half of the images with objects were fitted to; the others judge."
    if fit.config.anchors_per_location != present.anchors_per_location:
        text += f" {_count(fit.config)} a location, where there were {_count(present)}: the last "
        text += "layers of the heads grow."
    return join(
        [
            tag("p", text),
            _fit_table(fit, config),
            tag("h3", "In an experiment file"),
            tag("pre", as_python(fit.config)),
            tag("h3", "On the command line"),
            tag("pre", as_flags(fit.config)),
        ]
    )


def _fit_table(fit: Fit, config: Config) -> Html:
    def cells(before: Covered, after: Covered) -> Sequence[str]:
        pairs = zip(before, after, ("{:.1%}", "{:.1%}", "{:.3f}"), strict=True)
        return [f"{form.format(a)} → {form.format(b)}" for a, b, form in pairs]

    low, high = config.matching.negative_iou, config.matching.positive_iou
    rows = [
        ("fitted to", *cells(fit.before, fit.after)),
        ("held out", *cells(fit.held_out_before, fit.held_out_after)),
    ]
    return table(("images", f"IoU ≥ {high:g}", f"< {low:g}", "mean best IoU"), rows)


def _count(anchors: AnchorConfig) -> str:
    return f"{len(anchors.scales)} scales {TIMES} {len(anchors.ratios)} ratios"
