"""Stopping a run by SIGTERM, as schedulers do, or SIGINT (Ctrl-C): save first, then exit."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax

from retinanet_jax.runtime.processes import largest

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# EX_TEMPFAIL of sysexits.h: not finished; the same command resumes.
EXIT_CODE = 75


class Preempted(BaseException):
    """A signal stopped the run; like KeyboardInterrupt, not an Exception.

    Attributes:
        everywhere: all processes of the run raise it at the same step.
    """

    def __init__(self, name: str, everywhere: bool = False):
        super().__init__(name)
        self.everywhere = everywhere


class Preemption:
    """Handles the first signal as a request to stop; a second one ends the process at once.

    A context manager. The signal raises Preempted in the main thread. Inside `deferred()` it is
    only noted in `requested`, and the caller stops at the end of a step. Several processes must
    stop at the same step: see `agreed`.

    Outside the main thread, where Python handles no signals, it does nothing.

    Attributes:
        requested: name of the signal that this process got, '' if none.
    """

    def __init__(self):
        self.requested = ""
        self._deferred = False
        self._before: dict = {}
        self._vote: jax.Array | None = None

    def __enter__(self) -> "Preemption":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._take) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self, deferred: bool = True) -> Iterator[None]:
        """Inside, a signal is only noted. With False, nested in such a block, it raises again."""
        before, self._deferred = self._deferred, deferred
        try:
            yield
        finally:
            self._deferred = before

    def agreed(self, now: bool = False) -> str:
        """The name of a signal that any process of the run got, else ''; equal on all processes.

        All processes call it together. With several processes it returns the answer to the previous
        call, which arrives with the previous step, so that no step waits. With `now` it waits.
        """
        if jax.process_count() == 1:
            return self.requested
        number = signal.Signals[self.requested].value if self.requested else 0
        before, self._vote = self._vote, largest(number)
        answer = self._vote if now else before
        number = 0 if answer is None else int(answer)
        return signal.Signals(number).name if number else ""

    def _take(self, number: int, _: object) -> None:
        self.requested = signal.Signals(number).name
        for other in self._before:
            signal.signal(other, signal.SIG_DFL)
        if not self._deferred:
            raise Preempted(self.requested)
