"""The sections of the page that hold numbers: tables and charts of the objects and the anchors."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from retinanet_jax.anchors import AnchorConfig, cell_anchors
from retinanet_jax.config import Config
from retinanet_jax.inspection.charts import Axis, bar, histogram, scatter
from retinanet_jax.inspection.findings import Finding, box_sides
from retinanet_jax.inspection.fit import Covered, Fit, as_flags, as_python
from retinanet_jax.inspection.markup import TIMES, Html, join, tag
from retinanet_jax.inspection.objects import SIZES
from retinanet_jax.inspection.pictures import css_color
from retinanet_jax.inspection.statistics import Split, count_classes, count_levels, facts

STATES = ("positive", "between", "uncovered")
MAX_POINTS = 1500  # in the scatter plot
MAX_NAMED = 200  # things skipped, of each reason


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> Html:
    """A table that scrolls sideways where the screen is narrow; numbers stand right."""
    lines = [tag("tr", [tag("td", cell) for cell in row]) for row in rows]
    top = tag("thead", tag("tr", [tag("th", cell) for cell in head]))
    return tag("div", tag("table", top, tag("tbody", lines)), class_="scroll")


def findings_section(findings: Sequence[Finding]) -> Html:
    """What to know, and what to do about it."""
    if not findings:
        return tag("div", tag("p", "Nothing to warn of."), class_="finding fine")
    return join(
        tag("div", tag("p", finding.problem), tag("p", _with_code(finding.mend)), class_="finding")
        for finding in findings
    )


def _with_code(text: str) -> list[object]:
    """Flags in a sentence set as code."""
    parts = re.split(r"(--\S+[^\s:;.,])", text)
    return [tag("code", part) if part.startswith("--") else part for part in parts]


def dot(label: int) -> Html:
    """The colour of a class."""
    return tag("i", class_="dot", style=f"background:{css_color(label)}")


def legend(labels: Iterable[int], names: Sequence[str]) -> Html:
    """The colours of some classes."""
    return tag("div", [tag("span", dot(i), names[i]) for i in labels], class_="legend")


def objects_section(splits: Sequence[Split], names: Sequence[str], config: Config) -> Html:
    """Facts, classes, and the charts of sides, ratios and numbers."""
    columns = [facts(split) for split in splits]
    rows = [(name, *(column[i][1] for column in columns)) for i, (name, _) in enumerate(columns[0])]
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
    head: list[object] = ["class"]
    for split in splits:
        head += [f"{split.name}: objects", "sizes", "pictures", "no anchor"]
    rows = []
    for label, of_class in enumerate(zip(*counts, strict=True)):
        row: list[object] = [[dot(label), names[label]]]
        for count in of_class:
            if not count.objects:
                row += [tag("span", "0", class_="flag"), bar((), ()), "0", ""]
                continue
            share = count.uncovered / count.objects
            shown = f"{share:.1%}" if count.uncovered else "0"
            flagged = tag("span", shown, class_="flag" if share > 0.05 else None)
            sizes = bar([size / count.objects for size in count.by_size], SIZES)
            row += [f"{count.objects:,}", sizes, f"{count.images:,}", flagged]
        rows.append(row)
    return table(head, rows)


def _object_charts(splits: Sequence[Split], config: Config) -> list[Html]:
    anchors = config.anchors
    sides = [(split.name, box_sides(split.fitted.boxes)) for split in splits]
    ratios = [(split.name, _ratios(split.fitted.boxes)) for split in splits]
    counts = [
        (split.name, np.bincount(split.objects.image, minlength=len(split.fitted.sizes)))
        for split in splits
    ]
    most = max((values.max(initial=1) for _, values in counts), default=1)
    levels = [(anchors.size * 2.0**level, f"P{level}") for level in anchors.levels]
    sides_axis = _octaves([values for _, values in sides], "side of boxes, px, as the network sees")
    return [
        histogram(sides_axis, sides, marks=[m for m in levels if m[0] <= sides_axis.high]),
        histogram(
            Axis(1 / 8, 8, "height / width of boxes"),
            ratios,
            marks=[(ratio, f"{ratio:g}") for ratio in anchors.ratios if 1 / 8 <= ratio <= 8],
        ),
        histogram(
            Axis(-0.5, most + 0.5, "objects on a picture", log=False),
            counts,
            bins=min(int(most) + 1, 40),
        ),
    ]


def anchors_section(split: Split, config: Config) -> Html:
    """How the anchors cover the boxes of a split: shares, charts, levels."""
    matching, coverage = config.matching, split.coverage
    low, high = matching.negative_iou, matching.positive_iou
    explained = (
        f"best IoU of {high:g} or more: anchors are trained on them",
        f"{low:g} to {high:g}: their best anchor is ignored, but for a low-quality match",
        f"below {low:g}: no anchor; all are background, but for a low-quality match",
    )
    shares = _state_shares(split, np.ones(len(coverage.iou), bool), config)
    tiles = [
        tag("div", tag("b", f"{share:.1%}"), text, class_=f"tile {state}")
        for share, text, state in zip(shares, explained, STATES, strict=True)
    ]
    marks = [(low, f"{low:g}"), (high, f"{high:g}")]
    if low == high:
        marks = marks[:1]
    iou_axis = Axis(0.0, 1.0, "best IoU of a box over all anchors", log=False)
    return join(
        [
            tag("div", tiles, class_="tiles"),
            tag(
                "div",
                _shape_chart(split, config),
                tag(
                    "div",
                    histogram(iou_axis, [(split.name, coverage.iou)], bins=40, marks=marks),
                    _size_table(split, config),
                ),
                class_="charts",
            ),
            tag("h3", "Levels"),
            _level_table(split, config),
        ]
    )


def _size_table(split: Split, config: Config) -> Html:
    size_classes = split.objects.size_classes
    rows = []
    for place, size in enumerate(SIZES):
        here = size_classes == place
        shares = _state_shares(split, here, config)
        shown = [f"{share:.1%}" for share in shares] if here.any() else ["", "", ""]
        rows.append((size, f"{here.sum():,}", bar(shares, STATES), *shown))
    low, high = config.matching.negative_iou, config.matching.positive_iou
    return table(("objects", "", "", f"IoU ≥ {high:g}", "between", f"< {low:g}"), rows)


def _state_shares(split: Split, here: np.ndarray, config: Config) -> list[float]:
    positive = split.coverage.positive(config.matching)[here]
    uncovered = split.coverage.uncovered(config.matching)[here]
    if not len(positive):
        return [0.0, 0.0, 0.0]
    between = ~positive & ~uncovered
    return [float(state.mean()) for state in (positive, between, uncovered)]


def _shape_chart(split: Split, config: Config) -> Html:
    """Width against height of boxes, by how they are covered, and the shapes of the anchors."""
    sides = split.fitted.boxes[:, 2:] - split.fitted.boxes[:, :2]
    positive = split.coverage.positive(config.matching)
    uncovered = split.coverage.uncovered(config.matching)
    low, high = config.matching.negative_iou, config.matching.positive_iou
    step = max(1, -(-len(sides) // MAX_POINTS))
    some = np.arange(len(sides)) % step == 0
    groups = [
        (f"best IoU ≥ {high:g}", sides[some & positive]),
        ("between", sides[some & ~positive & ~uncovered]),
        (f"< {low:g}", sides[some & uncovered]),
    ]
    anchors = config.anchors
    cells = np.concatenate([cell_anchors(level, anchors) for level in anchors.levels])
    shapes = cells[:, 2:] - cells[:, :2]
    # Around the boxes and the finest level: beyond, anchors show nothing.
    axis = _octaves([sides, shapes[: anchors.anchors_per_location]], "")
    shapes = shapes[((shapes >= axis.low) & (shapes <= axis.high)).all(axis=1)]
    across, upwards = axis._replace(title="width of boxes, px"), axis._replace(title="height")
    return scatter(across, upwards, groups, shapes)


def _level_table(split: Split, config: Config) -> Html:
    rows = []
    for count in count_levels(split, config):
        sides = [config.anchors.size * scale * 2**count.level for scale in config.anchors.scales]
        rows.append(
            (
                f"P{count.level}",
                f"{2**count.level}",
                ", ".join(f"{side:.0f}" for side in sides),
                f"{count.anchors:,.0f}",
                f"{count.positive:.1f}",
                f"{count.ignored:.1f}",
                f"{count.boxes:.1%}",
            )
        )
    head = ("level", "stride", "anchor sides, px", "anchors", "positive", "ignored", "best boxes")
    explained = (
        "Anchors of a picture in the mean, as matching assigns them; and the share of the boxes "
        "whose best anchor lies on the level."
    )
    return join([table(head, rows), tag("p", explained, class_="soft")])


def fit_section(fit: Fit, config: Config) -> Html:
    """The proposal as lines to copy, and what it is worth on both halves."""
    if not fit.changes(config.anchors):
        worth = f"{fit.held_out_before.positive:.1%}"
        text = f"The configured anchors do as well as the best that were found: {worth} of the "
        return tag("p", text + f"boxes have an IoU of {config.matching.positive_iou:g} or more.")

    def row(name: str, before: Covered, after: Covered) -> tuple[str, ...]:
        pairs = zip(before, after, ("{:.1%}", "{:.1%}", "{:.3f}"), strict=True)
        return (name, *(f"{form.format(a)} → {form.format(b)}" for a, b, form in pairs))

    low, high = config.matching.negative_iou, config.matching.positive_iou
    head = ("pictures", f"IoU ≥ {high:g}", f"< {low:g}", "mean best IoU")
    rows = [
        row("fitted to", fit.before, fit.after),
        row("held out", fit.held_out_before, fit.held_out_after),
    ]
    anchors = fit.config
    more = ""
    if anchors.anchors_per_location != config.anchors.anchors_per_location:
        more = f" {_shapes(anchors)} a location, where there were {_shapes(config.anchors)}: the "
        more += "last layers of the heads grow."
    text = "Half of the pictures with objects were fitted to; the others judge." + more
    return join(
        [
            tag("p", text),
            table(head, rows),
            tag("h3", "In an experiment file"),
            tag("pre", as_python(anchors)),
            tag("h3", "On the command line"),
            tag("pre", as_flags(anchors)),
        ]
    )


def _shapes(anchors: AnchorConfig) -> str:
    return f"{len(anchors.scales)} scales {TIMES} {len(anchors.ratios)} ratios"


def report_section(splits: Sequence[Split]) -> Html:
    """What was skipped or changed, by file and id."""
    parts = []
    for split in splits:
        for reason, places in sorted(split.dataset.report.counts.items()):
            heading = f"{split.name}: {len(places):,} {TIMES} {reason}"
            named = [tag("li", place) for place in places[:MAX_NAMED]]
            left = len(places) - len(named)
            more = tag("li", f"and {left:,} more") if left else None
            parts.append(tag("details", tag("summary", heading), tag("ul", named, more)))
    return join(parts) if parts else tag("p", "Nothing was skipped or changed.")


def _octaves(values: Sequence[np.ndarray], title: str) -> Axis:
    """A logarithmic axis in whole octaves around some positive values."""
    joined = np.concatenate([np.ravel(part) for part in values])
    joined = joined[joined > 0]
    if not len(joined):
        return Axis(1.0, 2.0, title)
    low, high = np.floor(np.log2(joined.min())), np.ceil(np.log2(joined.max()))
    return Axis(float(2.0**low), float(2.0 ** max(high, low + 1)), title)


def _ratios(boxes: np.ndarray) -> np.ndarray:
    """Height over width of the boxes that have an area."""
    sides = boxes[:, 2:] - boxes[:, :2]
    sides = sides[(sides > 0).all(axis=1)]
    return sides[:, 1] / sides[:, 0]
