"""The frame of a page: headings and what leads to them, tables, and what to know at the top."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from retinanet_jax.reports.html.markup import Html, join, tag
from retinanet_jax.training.data_findings import Finding

STYLE = Path(__file__).with_name("style.css")


class Section(NamedTuple):
    """A part of a page.

    heading: its title.
    place: its name in links within the page.
    content: what stands beneath the title.
    """

    heading: str
    place: str
    content: Html


def document(title: str, subject: str, lead: str, sections: Sequence[Section]) -> str:
    """A page that needs no other file.

    Args:
      title: the heading at its top.
      subject: what it is on, beside the title in the browser's tab.
      lead: a sentence beneath the heading.
      sections: in their order.
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
        tag("nav", [tag("a", heading, href=f"#{place}") for heading, place, _ in sections]),
        [[tag("h2", heading, id=place), content] for heading, place, content in sections],
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> Html:
    """A table that scrolls sideways where the screen is narrow; numbers stand right."""
    lines = [tag("tr", [tag("td", cell) for cell in row]) for row in rows]
    top = tag("thead", tag("tr", [tag("th", cell) for cell in head]))
    return tag("div", tag("table", top, tag("tbody", lines)), class_="scroll")


def findings_list(findings: Sequence[Finding]) -> Html:
    """What to know, and what to do about it."""
    if not findings:
        return tag("div", tag("p", "Nothing to warn of."), class_="finding fine")
    return join(
        tag("div", tag("p", finding.problem), tag("p", _with_code(finding.fix)), class_="finding")
        for finding in findings
    )


def _with_code(text: str) -> list[object]:
    """Flags in a sentence set as code."""
    parts = re.split(r"(--\S+[^\s:;.,])", text)
    return [tag("code", part) if part.startswith("--") else part for part in parts]
