"""Words of messages."""

import difflib
from collections.abc import Iterable


def counted(number: int, noun: str) -> str:
    """Returns '1 image' or '1,234 images'."""
    return f"{number:,} {noun if number == 1 else f'{noun}s'}"


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Returns 'did you mean NAME?' for the most similar of the known names, or ''."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"did you mean {close[0]}?" if close else ""
