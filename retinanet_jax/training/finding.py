"""A problem that the user should know about, and its fix."""

from typing import NamedTuple


class Finding(NamedTuple):
    """A problem and its fix, one sentence each."""

    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.problem}\n{self.fix}"
