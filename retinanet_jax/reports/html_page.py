"""Self-contained HTML pages: elements as nested calls, tables, findings, the whole document."""

import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

STYLE = Path(__file__).with_name("style.css")
TIMES = "\N{MULTIPLICATION SIGN}"
MAX_LETTERS = 24  # of a class name in a plot or on an image
VOID = frozenset({"br", "hr", "img", "link", "meta"})


class Html(str):
    """Finished markup. All other text is escaped when it becomes part of an element."""


class Section(NamedTuple):
    """A section of a page.

    heading: title of the section.
    anchor: id of the section, the target of links within the page.
    content: what follows the title.
    """

    heading: str
    anchor: str
    content: Html


def tag(element: str, /, *children: object, **attributes: object) -> Html:
    """An element of HTML or SVG.

    Args:
      element: name of the element.
      children: Html, other text, numbers, or lists of these. None is left out.
      attributes: None is left out, numbers are rounded to two decimals. `class_` stands for class,
        and an underscore within a name for a hyphen.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if element in VOID:
        return Html(f"<{element}{written}>")
    return Html(f"<{element}{written}>{join(children)}</{element}>")


def join(children: Iterable[object]) -> Html:
    """Concatenates children and escapes those that are not Html."""
    return Html("".join(_child(child) for child in children))


def shortened(name: str, letters: int = MAX_LETTERS) -> str:
    """The name, cut to `letters` with an ellipsis at its end."""
    return name if len(name) <= letters else name[: letters - 1] + "…"


def document(title: str, subject: str, lead: str, sections: Sequence[Section]) -> str:
    """A page that needs no other file.

    Args:
      title: the heading.
      subject: follows the title in the browser's tab.
      lead: a sentence below the heading.
      sections: in order.
    """
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{title}: {subject}"),
        tag("style", Html(STYLE.read_text(encoding="utf-8"))),
    )
    body = tag(
        "body",
        tag("h1", title),
        tag("p", lead, class_="lead"),
        tag("nav", [tag("a", heading, href=f"#{anchor}") for heading, anchor, _ in sections]),
        [[tag("h2", heading, id=anchor), content] for heading, anchor, content in sections],
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> Html:
    """A table; it scrolls sideways on a narrow screen."""
    lines = [tag("tr", [tag("td", cell) for cell in row]) for row in rows]
    top = tag("thead", tag("tr", [tag("th", cell) for cell in head]))
    return tag("div", tag("table", top, tag("tbody", lines)), class_="scroll")


def share_bar(shares: Sequence[float], colors: Iterable[str], *, wide: bool = False) -> Html:
    """A bar divided into shares of its width, each in a CSS color."""
    parts = [
        tag("i", style=f"width:{100 * share:.2f}%;background:{color}")
        for share, color in zip(shares, colors, strict=True)
        if share > 0
    ]
    return tag("span", parts, class_="bar wide" if wide else "bar")


def color_keys(colors: dict[str, str]) -> Html:
    """A legend: names and their CSS colors."""
    keys = [
        tag("span", tag("i", style=f"background:{color}"), name, class_="key")
        for name, color in colors.items()
    ]
    return tag("p", keys, class_="keys")


def findings_list(findings: Iterable[tuple[str, str]]) -> Html:
    """Boxes with a problem and its fix each."""
    boxes = [
        tag("div", tag("p", problem), tag("p", _with_code(fix)), class_="finding")
        for problem, fix in findings
    ]
    if not boxes:
        boxes = [tag("div", tag("p", "No problems found."), class_="finding fine")]
    return join(boxes)


def _with_code(text: str) -> list[object]:
    """Sets flags in a sentence, and the command before them, as code."""
    parts = re.split(r"((?:retinanet-jax \w+ )?--\S+[^\s:;.,])", text)
    return [tag("code", part) if "--" in part else part for part in parts]


def _child(child: object) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, list | tuple):
        return join(child)
    return html.escape(_plain(child), quote=False)


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)
