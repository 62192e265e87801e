"""Errors in datasets, which name the file, the entry and a fix, and reports that count them."""

import collections
import itertools
import os
import textwrap
from collections.abc import Iterable
from typing import Any

ON_ERROR = ("strict", "skip")
NAMED_PER_REASON = 5  # in a summary
MAX_CHARACTERS = 5000  # of a part of a message: annotations may state names of any length
GIT_LFS = "version https://git-lfs"  # begins a pointer to a file that was not downloaded
# Kept by a report. A dataset may have a million objects, and as many reasons to name one.
MAX_NAMES = 1000


class DataError(ValueError):
    """An error in a dataset.

    The message is `file: entry: what is wrong; how to fix it`. `reason` is the short name under
    which a Report counts it, `where` is the file and entry, and `what` and `fix` are the rest.
    """

    def __init__(self, reason: str, path, where: str, what: str, fix: str):
        self.reason, self.fix = reason, fix
        path, where, self.what = (_bounded(str(part)) for part in (path, where, what))
        self.where = f"{path}: {where}" if where else path
        super().__init__(f"{self.where}: {self.what}; {fix}")

    def extended(self, text: str) -> "DataError":
        """Returns the same error with `text` appended to its fix."""
        return DataError(self.reason, self.where, "", self.what, self.fix + text)


class NoAnnotationsError(DataError):
    """A dataset is described but has no annotations; another layout that fits is read instead."""


def _bounded(text: str) -> str:
    """A part of a message without its middle, if that is longer than any path or list should be."""
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[: MAX_CHARACTERS // 2]} ... {text[-MAX_CHARACTERS // 2 :]}"


class Report:
    """Counts what was skipped or changed while a dataset was read.

    Attributes:
      counts: number of entries by reason.
      names: file and entry of the first MAX_NAMES, by reason.
    """

    def __init__(self):
        self.counts: collections.Counter[str] = collections.Counter()
        self.names: dict[str, list[str]] = collections.defaultdict(list)

    @classmethod
    def joined(cls, reports: Iterable["Report"]) -> "Report":
        """Returns the sum of several reports."""
        whole = cls()
        for report in reports:
            whole.counts.update(report.counts)
            for reason, names in report.names.items():
                kept = whole.names[reason]
                kept.extend(names[: MAX_NAMES - len(kept)])
        return whole

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Report":
        """Returns the inverse of `to_json`; also reads a dict of lists of names, without counts."""
        report = cls()
        for reason, found in content.items():
            count, names = (len(found), found) if isinstance(found, list) else found.values()
            report.counts[reason] = count
            report.names[reason] = names[:MAX_NAMES]
        return report

    def to_json(self) -> dict[str, Any]:
        """Returns the counts and names by reason."""
        return {r: {"count": n, "names": self.names[r]} for r, n in self.counts.items()}

    def add(self, reason: str, where: str) -> None:
        """Counts one entry under a reason; `where` is its file and place."""
        self.counts[reason] += 1
        if len(names := self.names[reason]) < MAX_NAMES:
            names.append(where)

    @property
    def total(self) -> int:
        """The sum of all counts."""
        return self.counts.total()

    def summary(self) -> str:
        """Returns one line per reason, with its count and first few names; '' if empty."""
        reasons = sorted(self.counts)
        folder = _common_folder([name for reason in reasons for name in self.names[reason]])
        lines = [
            f"{self.counts[r]:,} x {r}: {_few(self.names[r], folder, self.counts[r])}"
            for r in reasons
        ]
        return "\n".join([f"in {folder}", *lines] if folder else lines)

    def notes(self, name: str) -> str:
        """Returns the summary below a headline; '' if the report is empty."""
        if not self.total:
            return ""
        headline = f"{name}: {self.total:,} skipped or changed while reading:\n"
        return headline + textwrap.indent(self.summary(), "  ")


class Guard:
    """Collects the errors of single entries, depending on `on_error`.

    'skip' counts a DataError in the report and continues with the next entry. 'strict' also
    continues, and raises all errors together at the end. Usage::

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
        self._errors = Report()
        self._examples: dict[str, DataError] = {}  # the first of each reason

    def __enter__(self) -> "Guard":
        return self

    def __exit__(self, kind, error, traceback) -> bool:
        if not isinstance(error, DataError):
            return False
        counted = self._errors if self._strict else self.report
        counted.add(error.reason, error.where)
        if self._strict:
            self._examples.setdefault(error.reason, error)
        return True

    def finish(self, path) -> None:
        """Raises the errors collected in 'strict' mode: one alone, or a list by reason.

        Raises:
          DataError: there was an error; `path` is the file or folder that was read.
        """
        if not self._examples:
            return
        first = next(iter(self._examples.values()))
        if self._errors.total == 1:
            raise first
        lines, prefix = [], f"{path}: "
        for reason, error in self._examples.items():
            names, count = self._errors.names[reason], self._errors.counts[reason]
            lines.append(f"  {count:,} x {reason}:")
            lines.append(f"    {str(error).removeprefix(prefix)}")
            if len(names) > 1:
                lines.append(f"    also {_few(names[1:], prefix, count - 1)}")
        fix = "fix them, or set data.on_error=skip to leave these out and count them:\n"
        what = f"has {self._errors.total} errors"
        raise DataError(first.reason, path, "", what, fix + "\n".join(lines)) from first


def _common_folder(names: list[str]) -> str:
    """The folder, with a slash at its end, that all names begin with; '' if there is none."""
    paths = [name.partition(": ")[0] for name in names]
    common = os.path.commonprefix(paths)  # noqa: RUF071  (a folder may be a part of these)
    return common[: common.rfind("/") + 1]


def _few(names: list[str], prefix: str, count: int) -> str:
    """The first few of `count` names without the prefix; a repeated file name is left out."""
    shown = [name.removeprefix(prefix) for name in names[:1]]
    for before, name in itertools.pairwise(names[:NAMED_PER_REASON]):
        file = before.partition(": ")[0] + ": "
        shown.append(name.removeprefix(file).removeprefix(prefix))
    return ", ".join(shown) + (", ..." if count > len(shown) else "")
