"""A run that is asked to stop: by SIGTERM, as a scheduler does, or by SIGINT, Ctrl-C."""

import contextlib
import signal
import threading
from collections.abc import Iterator

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# EX_TEMPFAIL of sysexits.h: not done, and the same command goes on.
EXIT_CODE = 75


class Preempted(BaseException):
    """The run was asked to stop, and nothing is lost. Like KeyboardInterrupt, it is no error."""


class Preemption:
    """Takes the first signal as a wish to stop; a second one ends the process at once.

    A context manager. The signal raises Preempted where the program is, except inside
    `deferred()`, where it is only noted in `requested`: there the caller stops at the end of a
    step. With several processes, all have to come to that decision at the same step.

    Outside the main thread, where Python has no signals, it does nothing.

    Attributes:
        requested: the signal's name, or '' as long as there was none.
    """

    def __init__(self):
        self.requested = ""
        self._deferred = False
        self._before: dict = {}

    def __enter__(self) -> "Preemption":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._take) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self, deferred: bool = True) -> Iterator[None]:
        """Inside, a signal is only noted; with False, inside such a stretch, it raises again."""
        before, self._deferred = self._deferred, deferred
        try:
            yield
        finally:
            self._deferred = before

    def _take(self, number: int, _: object) -> None:
        self.requested = signal.Signals(number).name
        for other in self._before:
            signal.signal(other, signal.SIG_DFL)
        if not self._deferred:
            raise Preempted(self.requested)
