"""The style of all plots, and plots as SVG: inside a page in light or dark mode, or as a file.

matplotlib's own settings are changed only while a plot is drawn. The colors are the custom
properties of style.css. A page replaces them by `var(--name)`, so that they follow its mode.
"""

import functools
import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from xml.etree import ElementTree

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from retinanet_jax.reports.html_page import STYLE, Html

COLORS = dict(re.findall(r"--(\w+): (#\w{6});", STYLE.read_text(encoding="utf-8").split("}")[0]))
"""Colors of the light mode by name: ink, soft, line, card, accent, second, good, fair, bad."""

WIDTH, HEIGHT = 420, 330  # pixels of a plot, without the rows of its legend
FONT_SIZE, LEGEND_ROW = 12, 18  # pixels
SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"

_SETTINGS = {
    "axes.axisbelow": True,
    "axes.edgecolor": COLORS["soft"],
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": COLORS["ink"],
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.facecolor": COLORS["card"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": FONT_SIZE,
    "grid.color": COLORS["line"],
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    "lines.linewidth": 2,
    "svg.fonttype": "none",  # text stays text: any script, small files
    "text.color": COLORS["soft"],
    "text.parse_math": False,  # a dollar sign in a class name is a dollar sign
    "xtick.color": COLORS["soft"],
    "xtick.major.pad": 6,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.color": COLORS["soft"],
    "ytick.major.pad": 6,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Decorator: a plot function runs in this style. The user's settings are restored after it."""

    @functools.wraps(draw)
    def draw_in_style(*args: object, **kwargs: object) -> Figure:
        with style.context(["default", _SETTINGS]):
            return draw(*args, **kwargs)

    return draw_in_style


def new_plot(
    x_label: str, y_label: str, *, width: float | int = WIDTH, height: float | int = HEIGHT
) -> tuple[Figure, Axes]:
    """An empty plot of `width` x `height` pixels. `y_label` reads horizontally, above the axis."""
    # An inch has 72 points, and a point is a pixel of the SVG.
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x_label)
    axes.set_title(y_label, loc="left", fontsize=FONT_SIZE, color=COLORS["ink"])
    return figure, axes


def add_legend(figure: Figure, handles: Sequence[object], names: Sequence[str]) -> None:
    """A legend below the plot, which grows by its rows. A single name needs no legend."""
    if len(names) < 2:
        return
    width, height = figure.get_size_inches()
    letters = max(map(len, names)) + 6  # the swatch and the space between columns
    columns = max(1, min(len(names), int(width * 72 / (0.6 * FONT_SIZE * letters))))
    figure.set_size_inches(width, height + LEGEND_ROW * math.ceil(len(names) / columns) / 72)
    figure.legend(handles, names, loc="outside lower center", ncols=columns)


def octave_limits(values: np.ndarray) -> tuple[float, float]:
    """The powers of two around the positive values; (1, 2) if there are none."""
    positive = values[values > 0]
    if not positive.size:
        return 1.0, 2.0
    low, high = np.floor(np.log2(positive.min())), np.ceil(np.log2(positive.max()))
    return float(2.0**low), float(2.0 ** max(high, low + 1))


def set_octaves(axes: Axes, which: str, limits: tuple[float, float]) -> None:
    """Makes axis "x" or "y" logarithmic, with ticks at about six powers of two."""
    axes.set(**{f"{which}scale": "log", f"{which}lim": limits})
    powers = np.arange(np.ceil(np.log2(limits[0])), np.floor(np.log2(limits[1])) + 1)
    ticks = 2.0 ** powers[:: max(1, len(powers) // 6)]
    axis = getattr(axes, f"{which}axis")
    axis.set_ticks(ticks, [f"1/{1 / tick:g}" if tick < 1 else f"{tick:g}" for tick in ticks])
    axis.set_ticks([], minor=True)


def set_decades(axes: Axes) -> None:
    """Makes the x axis logarithmic, with plain numbers at its ticks."""
    axes.set_xscale("log")
    # matplotlib's own labels are formulas, which "text.parse_math" leaves as they are.
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def inline_svg(figure: Figure, label: str) -> Html:
    """The plot as an SVG element of a page, in the colors of the page's mode.

    Args:
      label: describes the plot to those who cannot see it; unique on a page.
    """
    root = _svg(figure, label, transparent=True)
    width = figure.get_size_inches()[0] * 72
    root.attrib |= {"class": "chart", "style": f"max-width:{1.45 * width:.0f}px"}
    text = ElementTree.tostring(root, encoding="unicode")
    for name, color in COLORS.items():
        text = text.replace(f": {color}", f": var(--{name})")
    return Html(text)


def svg_file(figure: Figure, label: str) -> str:
    """The content of an SVG file of the plot, in light colors on a light background."""
    root = _svg(figure, label, transparent=False)
    root.attrib |= {"xmlns": SVG[1:-1], "font-family": "sans-serif"}
    rule = ElementTree.Element("style")
    rule.text = "* { stroke-linejoin: round; stroke-linecap: butt }"
    root.insert(0, rule)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _svg(figure: Figure, label: str, *, transparent: bool) -> ElementTree.Element:
    """The <svg> element without metadata, names of fonts, and ids and digits that are not needed.

    The ids that remain are hashes of the drawing and of `label`, so that they are the same in each
    run and differ between the plots of a page.
    """
    file = io.BytesIO()
    with style.context(["default", _SETTINGS, {"svg.hashsalt": label}]), warnings.catch_warnings():
        # The reader's browser has glyphs that the font for the layout does not have.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=transparent or None)
    drawn = ElementTree.fromstring(file.getvalue())
    root = ElementTree.Element("svg", viewBox=drawn.attrib["viewBox"], role="img")
    root.set("aria-label", label)
    root.extend(part for part in drawn if part.tag != f"{SVG}metadata")
    for parent in root.iter():
        for child in list(parent):
            if child.tag == f"{SVG}style":
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG)
        element.tail = None
        if element.tag != "text":
            element.text = None
        element.attrib = dict(map(_attribute, element.items()))
        if element.tag == "g":
            element.attrib.pop("id", None)
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
    return root


def _attribute(item: tuple[str, str]) -> tuple[str, str]:
    """An attribute without its namespace, the names of fonts and digits that are not visible."""
    name, value = item[0].removeprefix(XLINK), item[1]
    if name == "style":
        value = re.sub(r" ?font-family: [^;]*;?", "", value)
    if name not in ("href", "id", "clip-path"):
        value = re.sub(r"(\.\d\d)\d+", r"\1", value)
    return name, " ".join(value.split())
