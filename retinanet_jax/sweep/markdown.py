"""Markdown tables of numbers."""

import re
from collections.abc import Sequence


def table_text(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number_text(value: float) -> str:
    """Three digits without a leading zero, as in tables of AP."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.3f}")


def value_text(value: object) -> str:
    """The value of a setting."""
    if isinstance(value, tuple):
        return f"({', '.join(map(value_text, value))})"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|")
