"""What is wrong with a dataset: errors that name file, id, field and fix, and their count."""

import collections
import itertools
import os
import textwrap
from collections.abc import Iterable
from pathlib import Path

ON_ERROR = ("strict", "skip")
NAMED_PER_REASON = 5


class DataError(ValueError):
    """A error in someone's data.

    The message reads `file: where: what is wrong; what fixes it`. `reason` is the short name under
    which a Report counts it, `where` the file and id it counts.
    """

    def __init__(self, reason: str, path, where: str, what: str, fix: str):
        self.reason = reason
        self.where = f"{path}: {where}" if where else str(path)
        super().__init__(f"{self.where}: {what}; {fix}")


class Report:
    """Counts what was skipped or changed while a dataset was read, per reason, with names."""

    def __init__(self, counts: dict[str, list[str]] | None = None):
        self.counts: dict[str, list[str]] = collections.defaultdict(list)
        self.counts.update(counts or {})

    @classmethod
    def joined(cls, reports: Iterable["Report"]) -> "Report":
        """One report of what several count."""
        whole = cls()
        for report in reports:
            for reason, names in report.counts.items():
                whole.counts[reason].extend(names)
        return whole

    def add(self, reason: str, where: str) -> None:
        """Counts one thing, named by file and id, under a reason."""
        self.counts[reason].append(where)

    @property
    def total(self) -> int:
        """Number of things counted, all reasons together."""
        return sum(len(names) for names in self.counts.values())

    def summary(self) -> str:
        """One line per reason: its count and the first few names; empty if nothing happened."""
        counts = sorted((reason, names) for reason, names in self.counts.items() if names)
        folder = _common_folder([name for _, names in counts for name in names])
        lines = [f"{len(names)} x {reason}: {_few(names, folder)}" for reason, names in counts]
        return "\n".join([f"in {folder}", *lines] if folder else lines)

    def notes(self, name: str, whole_list: Path) -> str:
        """The summary for a person, with the file that lists everything; '' if there is none."""
        if not self.total:
            return ""
        return (
            f"{name}: {self.total} skipped or changed while reading (the whole list is in "
            f"{whole_list}):\n{textwrap.indent(self.summary(), '  ')}"
        )


class Guard:
    """Runs checks as `on_error` says: 'skip' counts a DataError in the report and goes on.

    'strict' goes on too, to the end of the file, and then raises all that was found at once: a
    person with 500 errors wants one list and not 500 runs. It is used so::

        for entry in entries:
            with guard:
                check(entry)
                kept.append(entry)
        guard.finish(path)
    """

    def __init__(self, on_error: str, report: Report):
        if on_error not in ON_ERROR:
            raise ValueError(f"data.on_error: {on_error!r} is not one of {', '.join(ON_ERROR)}")
        self.report = report
        self._strict = on_error == "strict"
        self._faults = Report()
        self._examples: dict[str, DataError] = {}  # the first of each reason

    def __enter__(self) -> "Guard":
        return self

    def __exit__(self, kind, error, traceback) -> bool:
        if not isinstance(error, DataError):
            return False
        counted = self._faults if self._strict else self.report
        counted.add(error.reason, error.where)
        if self._strict:
            self._examples.setdefault(error.reason, error)
        return True

    def finish(self, path) -> None:
        """Raises what 'strict' has found so far: the one error, or a list of them, by reason.

        Raises:
          DataError: there was an error; `path` is the file or folder that was read.
        """
        if not self._examples:
            return
        first = next(iter(self._examples.values()))
        if self._faults.total == 1:
            raise first
        lines, prefix = [], f"{path}: "
        for reason, error in self._examples.items():
            names = self._faults.counts[reason]
            lines.append(f"  {len(names)} x {reason}:")
            lines.append(f"    {str(error).removeprefix(prefix)}")
            if len(names) > 1:
                lines.append(f"    also {_few(names[1:], prefix)}")
        fix = "fix them, or set data.on_error=skip to leave them out and have them counted:\n"
        what = f"has {self._faults.total} errors"
        raise DataError(first.reason, path, "", what, fix + "\n".join(lines)) from first


def _common_folder(names: list[str]) -> str:
    """The folder, with a slash at its end, that all names begin with; '' if there is none."""
    common = os.path.commonprefix(names)  # noqa: RUF071  (after the path, a name tells an id)
    return common[: common.rfind("/") + 1]


def _few(names: list[str], prefix: str) -> str:
    """The first few names without the prefix; a file that several in a row name is written once."""
    shown = [name.removeprefix(prefix) for name in names[:1]]
    for before, name in itertools.pairwise(names[:NAMED_PER_REASON]):
        file = before.partition(": ")[0] + ": "
        shown.append(name.removeprefix(file).removeprefix(prefix))
    return ", ".join(shown) + (", ..." if len(names) > NAMED_PER_REASON else "")
