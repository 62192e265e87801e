"""A watchdog: reports where a run hangs. It stops nothing."""

import faulthandler
import sys
import threading
import time
from pathlib import Path


class Watchdog:
    """Reports if `beat` is not called for `minutes`; a context manager. Off if `minutes` is None.

    A report has the current stage and the stacks of all threads. It goes to stderr and to
    WORKDIR/watchdog.txt (watchdog_N.txt for process N of several), once, and again each time the
    silence has doubled.
    """

    def __init__(self, minutes: float | None, workdir: Path, process: int = 0):
        name = f"watchdog_{process}.txt" if process else "watchdog.txt"
        self._limit, self._path = 60.0 * (minutes or 0.0), Path(workdir) / name
        self._stage, self._since = "start", time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        if self._limit:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._limit:
            self._thread.join()

    def beat(self, stage: str) -> None:
        """Call on progress: `stage` begins or advances."""
        self._stage, self._since = stage, time.monotonic()

    def _watch(self) -> None:
        reported, allowed = self._since, self._limit
        while not self._ended.wait(min(1.0, self._limit / 4)):
            if reported != self._since:
                reported, allowed = self._since, self._limit
            silence = time.monotonic() - reported
            if silence > allowed:
                self._report(silence)
                allowed = 2 * silence

    def _report(self, silence: float) -> None:
        line = (
            f"watchdog: no progress for {silence / 60:.1f} minutes, stage {self._stage}; stacks of "
            "all threads:"
        )
        _dump(sys.__stderr__, line)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                _dump(file, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}")
        except OSError as error:
            # The disk may be the cause.
            print(f"watchdog: {self._path}: {error}", file=sys.__stderr__, flush=True)


def _dump(file, line: str) -> None:
    print(line, file=file, flush=True)
    faulthandler.dump_traceback(file, all_threads=True)
    print(file=file, flush=True)
