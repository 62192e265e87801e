"""Checks of the fields of a section; their messages name the field and the fix."""

from collections.abc import Sequence


def one_of(field: str, value: str, allowed: Sequence[str]) -> None:
    """Raises ValueError unless the value of `field`, 'section.field', is allowed."""
    if value not in allowed:
        raise ValueError(f"{field}: {value!r} is not one of {', '.join(allowed)}")


def above_zero_or_none(section: object, name: str, *fields: str) -> None:
    """Raises ValueError if one of these fields of the section `name` has a number of 0 or less."""
    for field in fields:
        value = getattr(section, field)
        if value not in (None, "auto") and value <= 0:
            fix = "write 'none' or a number above 0"
            raise ValueError(f"{name}.{field}: {value} is invalid; {fix}")
