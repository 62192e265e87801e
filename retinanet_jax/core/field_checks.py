"""Checks of the fields of a section; their messages name the field and the fix."""

from collections.abc import Collection, Mapping

_UNKNOWN = "is not one of"


def one_of(field: str, value: object, allowed: Collection[str]) -> None:
    """Raises ValueError unless the value of `field`, 'section.field', is allowed."""
    if value not in allowed:
        known = ", ".join(allowed) or "the names that were added, which are none"
        raise ValueError(f"{field}: {value!r} {_UNKNOWN} {known}")


def one_of_table(field: str, value: object, table: Mapping[str, object], kind: type) -> None:
    """Like `one_of`; raises ValueError also if the entry in the table is not of its kind."""
    one_of(field, value, table)
    if not isinstance(table[value], kind):
        raise ValueError(
            f"{field}: the entry {value!r} is a {type(table[value]).__name__}; write "
            f"{kind.__name__}(...) around it, as in CONTRIBUTING.md"
        )


def says_unknown_name(message: str) -> bool:
    """Returns whether a message about fields has an error of `one_of`."""
    return _UNKNOWN in message


def above_zero_or_none(section: object, name: str, *fields: str) -> None:
    """Raises ValueError if one of these fields of the section `name` has a number of 0 or less."""
    for field in fields:
        value = getattr(section, field)
        if value not in (None, "auto") and value <= 0:
            fix = "write 'none' or a number above 0"
            raise ValueError(f"{name}.{field}: {value} is invalid; {fix}")
