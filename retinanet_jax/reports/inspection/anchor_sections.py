"""Sections of the inspection page: coverage by the anchors, and the fitted anchors."""

from collections.abc import Sequence

import numpy as np

from retinanet_jax.config.settings import Config
from retinanet_jax.core.anchors import AnchorConfig, cell_anchors
from retinanet_jax.data.anchor_coverage import STATES, best_anchor
from retinanet_jax.data.object_table import SIZES, box_sides
from retinanet_jax.data.pipeline import transforms
from retinanet_jax.reports.html_page import TIMES, Html, join, share_bar, table, tag
from retinanet_jax.reports.inspection.fit_anchors import (
    CoverageSummary,
    as_flags,
    as_python,
    fit_anchors,
)
from retinanet_jax.reports.inspection.page_images import anchor_crop
from retinanet_jax.reports.inspection.split_statistics import Split, count_levels
from retinanet_jax.reports.plot_style import COLORS, inline_svg, octave_limits
from retinanet_jax.reports.plots import UNIT, Mark, histogram, shape_plot

MAX_POINTS = 1500  # of the plot of shapes
CROPS = (6, 6, 12)  # crops of boxes in each of STATES
STATE_COLORS = ("var(--good)", "var(--fair)", "var(--bad)")


def anchors_section(split: Split, config: Config) -> Html:
    """How the anchors cover the boxes of a split: shares, plots, levels, crops."""
    if not len(split.objects.labels):
        return tag("p", "There are no objects.")
    text = (
        f"Boxes of {split.name}, resized as for the network, without random augmentation or "
        "crowds. In the images, the best anchor of each box is dashed."
    )
    return join(
        [
            tag("p", text, class_="soft"),
            tag("div", _tiles(split, config), class_="tiles"),
            tag("div", _shape_plot(split, config), _iou_plot(split, config), class_="charts"),
            tag("h3", "Levels"),
            _level_table(split, config),
            _crops(split, config),
        ]
    )


def _tiles(split: Split, config: Config) -> list[Html]:
    low, high = config.matching.negative_iou, config.matching.positive_iou
    texts = (
        f"of the boxes have a best IoU of at least {high:g}: they have positive anchors",
        f"between {low:g} and {high:g}: their best anchor is ignored or a low-quality match",
        f"below {low:g}: their anchors are background, except for a low-quality match",
    )
    shares = _shares(split.coverage.states(config.matching))
    return [
        tag("div", tag("b", f"{share:.1%}"), text, class_=f"tile {state}")
        for share, text, state in zip(shares, texts, STATES, strict=True)
    ]


def _shares(states: np.ndarray) -> list[float]:
    counts = np.bincount(states, minlength=len(STATES))
    return (counts / max(1, len(states))).tolist()


def _iou_plot(split: Split, config: Config) -> Html:
    """A histogram of the best IoU, and a table by size of the objects."""
    low, high = config.matching.negative_iou, config.matching.positive_iou
    thresholds = [Mark(value, f"{value:g}") for value in sorted({low, high})]
    label = "best IoU of a box over all anchors"
    series = [(split.name, split.coverage.iou)]
    plot = inline_svg(histogram(series, label, UNIT, bins=40, marks=thresholds), label)
    size_classes, states = split.objects.size_classes, split.coverage.states(config.matching)
    rows = []
    for index, size in enumerate(SIZES):
        shares = _shares(states[size_classes == index])
        count = int((size_classes == index).sum())
        shown = [f"{share:.1%}" for share in shares] if count else ["", "", ""]
        rows.append((size, f"{count:,}", share_bar(shares, STATE_COLORS), *shown))
    by_size = table(("objects", "", "", f"IoU ≥ {high:g}", "between", f"< {low:g}"), rows)
    return tag("div", tag("figure", plot), by_size)


def _shape_plot(split: Split, config: Config) -> Html:
    """Widths and heights of boxes, by coverage, and of the anchors."""
    step = max(1, -(-len(split.objects.labels) // MAX_POINTS))
    sides = box_sides(split.fitted.boxes)[::step]
    states = split.coverage.states(config.matching)[::step]
    low, high = config.matching.negative_iou, config.matching.positive_iou
    names = (f"best IoU ≥ {high:g}", "between", f"< {low:g}")
    colors = [COLORS[name] for name in ("good", "fair", "bad")]
    # A point without an area has no place on logarithmic axes.
    solid = (sides > 0).all(axis=1)
    groups = [
        (name, sides[solid & (states == state)], color)
        for state, (name, color) in enumerate(zip(names, colors, strict=True))
    ]
    anchors = config.anchors
    cells = np.concatenate([cell_anchors(level, anchors) for level in anchors.levels])
    shapes = box_sides(cells)
    # The limits hold the boxes and the anchors of the finest level.
    limits = octave_limits(np.concatenate([sides, shapes[: anchors.anchors_per_location]]))
    shapes = shapes[((shapes >= limits[0]) & (shapes <= limits[1])).all(axis=1)]
    labels = ("width of boxes (resized), px", "height, px")
    plot = shape_plot(groups, shapes, "anchors", limits, *labels)
    return tag("figure", inline_svg(plot, "Widths and heights of boxes and anchors"))


def _level_table(split: Split, config: Config) -> Html:
    rows = []
    for count in count_levels(split, config):
        sides = [config.anchors.size * scale * 2**count.level for scale in config.anchors.scales]
        listed = ", ".join(f"{side:.0f}" for side in sides)
        means = (f"{count.anchors:,.0f}", f"{count.positive:.1f}", f"{count.ignored:.1f}")
        rows.append((f"P{count.level}", 2**count.level, listed, *means, f"{count.boxes:.1%}"))
    head = ("level", "stride", "anchor sides, px", "anchors", "positive", "ignored", "best boxes")
    text = (
        "Anchors: means per image, after matching as in training. Best boxes: share of the boxes "
        "whose best anchor is on this level."
    )
    return join([table(head, rows), tag("p", text, class_="soft")])


def _crops(split: Split, config: Config) -> Html:
    """Boxes of each state with their best anchors, the worst state first."""
    low, high = config.matching.negative_iou, config.matching.positive_iou
    headings = (
        f"Best IoU of {high:g} or more",
        f"Best IoU between {low:g} and {high:g}",
        f"Best IoU below {low:g}",
    )
    order = np.argsort(split.coverage.iou, kind="stable")
    states = split.coverage.states(config.matching)[order]
    parts = []
    for state in reversed(range(len(STATES))):
        indices = order[states == state]
        if STATES[state] == "uncovered":
            # One box per image, the worst, so that a single image does not fill the page.
            _, first = np.unique(split.objects.image[indices], return_index=True)
            indices = indices[np.sort(first)]
        else:
            indices = indices[:: max(1, len(indices) // CROPS[state])]
        crops = [_crop(split, index, config) for index in indices[: CROPS[state]].tolist()]
        if crops:
            parts += [tag("h3", headings[state]), tag("div", crops, class_="images crops")]
    return join(parts)


def _crop(split: Split, index: int, config: Config) -> Html:
    """A crop around one box, given by its index in `split.objects`."""
    objects, coverage = split.objects, split.coverage
    row = objects.image[index]
    example = split.dataset.source[int(objects.numbers[row])]
    image = transforms.resize(example, tuple(split.fitted.sizes[row].tolist())).image
    box, canvas = split.fitted.boxes[index], tuple(split.fitted.canvases[row].tolist())
    level, shape = int(coverage.level[index]), int(coverage.shape[index])
    anchor = best_anchor(box, canvas, level, shape, config.anchors)
    label, names = int(objects.labels[index]), split.dataset.categories.names
    x1, y1, x2, y2 = box.tolist()
    caption = (
        names[label],
        f"{x2 - x1:.0f}{TIMES}{y2 - y1:.0f} px",
        f"IoU {coverage.iou[index]:.2f} on P{config.anchors.levels[level]}",
        f"image {example.image_id}",
    )
    crop = anchor_crop(image, box, label, anchor, names)
    return tag("figure", crop, tag("figcaption", " · ".join(caption)))


def fit_section(split: Split, config: Config) -> Html:
    """The fitted anchors as lines to copy, and their coverage on both halves of the images."""
    if len(np.unique(split.objects.image)) < 2:
        return tag("p", "Fitting anchors needs at least two images with objects.")
    fit, present = fit_anchors(split.objects, config), config.anchors
    if fit.config == present:
        text = (
            "No better anchors were found. With the configured ones, "
            f"{fit.held_out_before.positive:.1%} of the boxes have an IoU of "
            f"{config.matching.positive_iou:g} or more."
        )
        return tag("p", text)
    text = "The anchors were fitted to half of the images and checked on the other half."
    if fit.config.anchors_per_location != present.anchors_per_location:
        text += f" There are {_count(fit.config)} per location instead of {_count(present)}, so "
        text += "the last layers of the heads are larger."
    low, high = config.matching.negative_iou, config.matching.positive_iou
    rows = [
        ("fitted to", *_change(fit.before, fit.after)),
        ("held out", *_change(fit.held_out_before, fit.held_out_after)),
    ]
    return join(
        [
            tag("p", text),
            table(("images", f"IoU ≥ {high:g}", f"< {low:g}", "mean best IoU"), rows),
            tag("h3", "In an experiment file"),
            tag("pre", as_python(fit.config)),
            tag("h3", "On the command line"),
            tag("pre", as_flags(fit.config)),
        ]
    )


def _change(before: CoverageSummary, after: CoverageSummary) -> Sequence[str]:
    pairs = zip(before, after, ("{:.1%}", "{:.1%}", "{:.3f}"), strict=True)
    return [f"{form.format(a)} → {form.format(b)}" for a, b, form in pairs]


def _count(anchors: AnchorConfig) -> str:
    return f"{len(anchors.scales)} scales {TIMES} {len(anchors.ratios)} ratios"
