"""HTML and SVG as nested calls: what is well formed and escaped cannot be forgotten."""

import html
from collections.abc import Iterable

TIMES = "\N{MULTIPLICATION SIGN}"
LONGEST_NAME = 24  # letters on an image; the pointer tells the rest
VOID = frozenset({"br", "hr", "img", "link", "meta"})


class Html(str):
    """Markup that is finished; any other text is escaped where it is put in."""


def tag(element: str, /, *children: object, **attributes: object) -> Html:
    """An element of HTML or SVG.

    Args:
      element: its name.
      children: Html, other text, numbers, lists of these; None is left out.
      attributes: None is left out; numbers are rounded to hundredths. `class_` is class, and an
        underscore within a name stands for a hyphen.
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
    """Children one after the other, escaped where they are not Html."""
    return Html("".join(_child(child) for child in children))


def shortened(name: str, letters: int = LONGEST_NAME) -> str:
    """A name, or of a longer one its beginning."""
    return name if len(name) <= letters else name[: letters - 1] + "…"


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
