"""What is wrong with a data set: errors that name file, id, field and mend, and their count."""

import collections
import logging

ON_ERROR = ("strict", "skip")
NAMED_PER_REASON = 5

_log = logging.getLogger(__name__)


class DataError(ValueError):
    """A fault in someone's data.

    The message reads `file: where: what is wrong; what mends it`. `reason` is the short name under
    which a Report counts it, `where` the file and id it counts.
    """

    def __init__(self, reason: str, path, where: str, what: str, mend: str):
        self.reason = reason
        self.where = f"{path}: {where}" if where else str(path)
        super().__init__(f"{self.where}: {what}; {mend}")


class Report:
    """Counts what was skipped or changed while a data set was read, per reason, with names."""

    def __init__(self, counts: dict[str, list[str]] | None = None):
        self.counts: dict[str, list[str]] = collections.defaultdict(list)
        self.counts.update(counts or {})

    def add(self, reason: str, where: str) -> None:
        """Counts one thing, named by file and id, under a reason."""
        self.counts[reason].append(where)

    @property
    def total(self) -> int:
        """Number of things counted, all reasons together."""
        return sum(len(names) for names in self.counts.values())

    def summary(self) -> str:
        """One line per reason: its count and the first few names; empty if nothing happened."""
        lines = []
        for reason, names in sorted(self.counts.items()):
            more = ", ..." if len(names) > NAMED_PER_REASON else ""
            lines.append(f"{len(names)} x {reason}: {', '.join(names[:NAMED_PER_REASON])}{more}")
        return "\n".join(lines)

    def log(self, name: str) -> None:
        """Logs the summary as a warning, if there is anything to tell."""
        if self.total:
            _log.warning("%s: skipped or changed while reading:\n%s", name, self.summary())


class Guard:
    """Runs checks as `on_error` says: 'strict' lets a DataError through, 'skip' counts it.

    with guard:
        check(entry)
        kept.append(entry)
    """

    def __init__(self, on_error: str, report: Report):
        if on_error not in ON_ERROR:
            raise ValueError(f"data.on_error: {on_error!r} is not one of {', '.join(ON_ERROR)}")
        self.skip = on_error == "skip"
        self.report = report

    def __enter__(self) -> "Guard":
        return self

    def __exit__(self, kind, error, traceback) -> bool:
        if self.skip and isinstance(error, DataError):
            self.report.add(error.reason, error.where)
            return True
        return False
