"""Sections of the page on the data: the objects, what was skipped."""

from collections.abc import Iterable, Sequence

import numpy as np

from retinanet_jax.config.settings import Config
from retinanet_jax.data.object_table import SIZES, box_sides
from retinanet_jax.reports.html.axes import Axis, octaves
from retinanet_jax.reports.html.charts import bar, histogram
from retinanet_jax.reports.html.document import table
from retinanet_jax.reports.html.markup import TIMES, Html, join, tag
from retinanet_jax.reports.inspection.inspection_images import css_color
from retinanet_jax.reports.inspection.split_statistics import (
    ClassCount,
    Split,
    count_classes,
    facts,
    reports,
)
from retinanet_jax.training.data_findings import UNCOVERED_SHARE

MAX_NAMED = 200  # things skipped, of each reason
FEW_NAMED = 5  # so many are shown without a click


def _dot(label: int) -> Html:
    return tag("i", class_="dot", style=f"background:{css_color(label)}")


def legend(labels: Iterable[int], names: Sequence[str]) -> Html:
    """The colours of some classes."""
    return tag("div", [tag("span", _dot(i), names[i]) for i in labels], class_="legend")


def objects_section(splits: Sequence[Split], names: Sequence[str], config: Config) -> Html:
    """Facts, classes, and the charts of sides, ratios and numbers."""
    columns = [dict(facts(split)) for split in splits]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    sizes = [tag("span", tag("i", class_=f"dot {size}"), size, class_="key") for size in SIZES]
    edges = "area as annotated: small under 32² pixels, medium under 96²"
    return join(
        [
            table(("", *(split.name for split in splits)), rows),
            tag("p", "Median, and in brackets the smallest and the largest.", class_="soft"),
            tag("h3", "Classes"),
            tag("p", sizes, tag("span", edges, class_="soft")),
            _class_table(splits, names, config),
            tag("div", _object_charts(splits, config), class_="charts"),
        ]
    )


def _class_table(splits: Sequence[Split], names: Sequence[str], config: Config) -> Html:
    counts = [count_classes(split, len(names), config) for split in splits]
    low, high = config.matching.negative_iou, config.matching.positive_iou
    head: list[object] = ["class"]
    for split in splits:
        head += [f"{split.name}: objects", "sizes", "images", f"IoU < {high:g}", f"< {low:g}"]
    rows = [
        [[_dot(label), name], *(_class_cells(count[label]) for count in counts)]
        for label, name in enumerate(names)
    ]
    explained = "IoU: the share of the objects whose best IoU over all anchors is lower."
    flat = [[first, *(cell for cells in rest for cell in cells)] for first, *rest in rows]
    return join([table(head, flat), tag("p", explained, class_="soft")])


def _class_cells(count: ClassCount) -> list[object]:
    if not count.objects:
        return [tag("span", "0", class_="flag"), bar((), ()), "0", "", ""]
    sizes = bar([size / count.objects for size in count.by_size], SIZES)
    _, between, uncovered = (number / count.objects for number in count.by_state)
    flag = "flag" if uncovered > UNCOVERED_SHARE else None
    shares = f"{between + uncovered:.1%}", tag("span", f"{uncovered:.1%}", class_=flag)
    return [f"{count.objects:,}", sizes, f"{count.images:,}", *shares]


def _object_charts(splits: Sequence[Split], config: Config) -> list[Html]:
    anchors = config.anchors
    extents = [box_sides(split.fitted.boxes) for split in splits]
    names = [split.name for split in splits]
    sides = [np.sqrt(extent.prod(axis=1)) for extent in extents]
    solid = [extent[(extent > 0).all(axis=1)] for extent in extents]
    ratios = [extent[:, 1] / extent[:, 0] for extent in solid]
    counts = [np.bincount(s.objects.image, minlength=len(s.fitted.sizes)) for s in splits]
    most = int(max(count.max(initial=1) for count in counts))
    side_axis = octaves(np.concatenate(sides), "side of boxes, px, as the network sees")
    ratio_axis = Axis(1 / 8, 8.0, "height / width of boxes")
    count_axis = Axis(-0.5, most + 0.5, "objects on an image", log=False)
    levels = [(anchors.size * 2.0**level, f"P{level}") for level in anchors.levels]
    shapes = [(float(ratio), f"{ratio:g}") for ratio in anchors.ratios]
    return [
        histogram(side_axis, list(zip(names, sides, strict=True)), marks=levels),
        histogram(ratio_axis, list(zip(names, ratios, strict=True)), marks=shapes),
        histogram(count_axis, list(zip(names, counts, strict=True)), bins=min(most + 1, 40)),
    ]


def report_section(splits: Sequence[Split]) -> Html:
    """What was skipped or changed, by file and id."""
    parts = []
    for name, report in reports(splits):
        for reason, count in sorted(report.counts.items()):
            places = report.names[reason]
            heading = f"{name}: {count:,} {TIMES} {reason}"
            named = [tag("li", place) for place in places[:MAX_NAMED]]
            left = count - len(named)
            more = tag("li", f"and {left:,} more") if left else None
            opened = "" if len(places) <= FEW_NAMED else None
            parts.append(
                tag("details", tag("summary", heading), tag("ul", named, more), open=opened)
            )
    return join(parts) if parts else tag("p", "Nothing was skipped or changed.")
