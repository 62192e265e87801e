"""A problem that a person should know about, and its fix."""

from typing import NamedTuple


class Finding(NamedTuple):
    """A problem, and what to do about it: a sentence each."""

    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.problem}\n{self.fix}"
