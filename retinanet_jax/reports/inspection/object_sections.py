"""Sections of the inspection page: the objects, and the entries that were skipped or changed."""

from collections.abc import Iterable, Sequence

import numpy as np

from retinanet_jax.config.settings import Config
from retinanet_jax.data.object_table import SIZES, box_sides
from retinanet_jax.reports.html_page import (
    TIMES,
    Html,
    color_keys,
    join,
    share_bar,
    table,
    tag,
)
from retinanet_jax.reports.inspection.page_images import css_color
from retinanet_jax.reports.inspection.split_statistics import (
    ClassCount,
    Split,
    count_classes,
    facts,
    reports,
)
from retinanet_jax.reports.plot_style import inline_svg, octave_limits
from retinanet_jax.reports.plots import Mark, histogram
from retinanet_jax.training.data_findings import UNCOVERED_SHARE

MAX_LISTED = 200  # skipped or changed entries that are listed, per reason
MAX_OPEN = 5  # up to so many are shown without a click
SIZE_COLORS = dict(zip(SIZES, ("#9cc3ff", "#4f8ef5", "#1d4fa8"), strict=True))


def _dot(label: int) -> Html:
    return tag("i", class_="dot", style=f"background:{css_color(label)}")


def class_legend(labels: Iterable[int], names: Sequence[str]) -> Html:
    """The colors of some classes."""
    return tag("div", [tag("span", _dot(i), names[i]) for i in labels], class_="legend")


def objects_section(splits: Sequence[Split], names: Sequence[str], config: Config) -> Html:
    """Facts, classes, and histograms of sides, ratios and numbers of objects."""
    columns = [dict(facts(split)) for split in splits]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    limits = "small: area below 32² pixels, medium: below 96² (as annotated)"
    return join(
        [
            table(("", *(split.name for split in splits)), rows),
            tag("p", "Median (minimum to maximum).", class_="soft"),
            tag("h3", "Classes"),
            color_keys(SIZE_COLORS),
            tag("p", limits, class_="soft"),
            _class_table(splits, names, config),
            tag("div", _histograms(splits, config), class_="charts"),
        ]
    )


def _class_table(splits: Sequence[Split], names: Sequence[str], config: Config) -> Html:
    counts = [count_classes(split, len(names), config) for split in splits]
    low, high = config.matching.negative_iou, config.matching.positive_iou
    head: list[object] = ["class"]
    for split in splits:
        head += [f"{split.name}: objects", "sizes", "images", f"IoU < {high:g}", f"< {low:g}"]
    rows = [
        [[_dot(label), name], *(cell for count in counts for cell in _class_cells(count[label]))]
        for label, name in enumerate(names)
    ]
    text = "IoU: share of the objects whose best IoU over all anchors is below the value."
    return join([table(head, rows), tag("p", text, class_="soft")])


def _class_cells(count: ClassCount) -> list[object]:
    if not count.objects:
        return [tag("span", "0", class_="flag"), share_bar((), ()), "0", "", ""]
    sizes = share_bar([size / count.objects for size in count.by_size], SIZE_COLORS.values())
    _, between, uncovered = (number / count.objects for number in count.by_state)
    flag = "flag" if uncovered > UNCOVERED_SHARE else None
    shares = f"{between + uncovered:.1%}", tag("span", f"{uncovered:.1%}", class_=flag)
    return [f"{count.objects:,}", sizes, f"{count.images:,}", *shares]


def _histograms(splits: Sequence[Split], config: Config) -> list[Html]:
    anchors = config.anchors
    extents = [box_sides(split.fitted.boxes) for split in splits]
    sides = [np.sqrt(extent.prod(axis=1)) for extent in extents]
    solid = [extent[(extent > 0).all(axis=1)] for extent in extents]
    ratios = [extent[:, 1] / extent[:, 0] for extent in solid]
    counts = [np.bincount(s.objects.image, minlength=len(s.fitted.sizes)) for s in splits]
    most = int(max(count.max(initial=1) for count in counts))
    levels = [Mark(anchors.size * 2.0**level, f"P{level}") for level in anchors.levels]
    shapes = [Mark(float(ratio), f"{ratio:g}") for ratio in anchors.ratios]

    def drawn(values: list[np.ndarray], label: str, limits: tuple[float, float], **more) -> Html:
        series = [(split.name, array) for split, array in zip(splits, values, strict=True)]
        text = f"Histogram: {label}"
        return tag("figure", inline_svg(histogram(series, label, limits, **more), text))

    all_sides = octave_limits(np.concatenate(sides))
    return [
        drawn(sides, "side of boxes (resized), px", all_sides, octaves=True, marks=levels),
        drawn(ratios, "height / width of boxes", (1 / 8, 8.0), octaves=True, marks=shapes),
        drawn(counts, "objects per image", (-0.5, most + 0.5), bins=min(most + 1, 40)),
    ]


def skipped_section(splits: Sequence[Split]) -> Html:
    """Skipped or changed entries, by file and id."""
    parts = []
    for name, report in reports(splits):
        for reason, count in sorted(report.counts.items()):
            places = report.names[reason]
            heading = f"{name}: {count:,} {TIMES} {reason}"
            listed = [tag("li", place) for place in places[:MAX_LISTED]]
            if count > len(listed):
                listed.append(tag("li", f"and {count - len(listed):,} more"))
            opened = "" if count <= MAX_OPEN else None
            parts.append(tag("details", tag("summary", heading), tag("ul", listed), open=opened))
    return join(parts) if parts else tag("p", "No entries were skipped or changed.")
