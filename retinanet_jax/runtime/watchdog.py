"""A watchdog: says where a run hangs, instead of silence. It ends nothing."""

import faulthandler
import sys
import threading
import time
from pathlib import Path


class Watchdog:
    """Watches for `minutes` without a `beat`; a context manager. 0 minutes: it does nothing.

    It then names the stage and dumps the stacks of all threads to stderr and to watchdog.txt in
    the workdir (of process N of several watchdog_N.txt): once, and again whenever the silence has
    doubled.
    """

    def __init__(self, minutes: float, workdir: Path, process: int = 0):
        name = f"watchdog_{process}.txt" if process else "watchdog.txt"
        self._limit, self._path = 60.0 * minutes, Path(workdir) / name
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
        """There is progress: `stage` begins, or has come a step further."""
        self._stage, self._since = stage, time.monotonic()

    def _watch(self) -> None:
        told, allowed = self._since, self._limit
        while not self._ended.wait(min(1.0, self._limit / 4)):
            if told != self._since:
                told, allowed = self._since, self._limit
            silence = time.monotonic() - told
            if silence > allowed:
                self._report(silence)
                allowed = 2 * silence

    def _report(self, silence: float) -> None:
        line = (
            f"watchdog: no progress for {silence / 60:.1f} minutes in the stage {self._stage}; "
            "where all threads are:"
        )
        _dump(sys.__stderr__, line)
        try:
            with self._path.open("a") as file:
                _dump(file, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}")
        except OSError as error:
            # The disk may be what hangs.
            print(f"watchdog: {self._path}: {error}", file=sys.__stderr__, flush=True)


def _dump(file, line: str) -> None:
    print(line, file=file, flush=True)
    faulthandler.dump_traceback(file, all_threads=True)
    print(file=file, flush=True)
