"""Processes the items of a stream in threads, ahead of the consumer, in order."""

import atexit
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

_END = object()


def read_ahead(
    items: Iterable[Any], work: Callable[[Any], Any], *, threads: int, ahead: int
) -> Iterator[Any]:
    """Yields `work(item)` for each item in order, with up to `ahead` of them made in advance.

    A separate thread takes the items, so that a stream that is read in order, such as a video, is
    read in advance, too. An error in `work` is raised at its item's turn, when no other work is
    under way. When the iterator is closed, what has not begun is left out, and what is under way
    ends without being waited for, at the latest when the program ends.
    """
    reader = _Reader(iter(items), work, threads)
    coming = deque(reader.next_result() for _ in range(ahead))
    try:
        while (result := coming.popleft().result()) is not _END:
            coming.append(reader.next_result())
            yield result
    except GeneratorExit:
        # Python's garbage collector may close this generator anywhere, also in code of the threads
        # that holds a lock. Here nothing takes one: SimpleQueue.put is reentrant.
        reader.stop()
        raise
    except BaseException:
        reader.stop()
        reader.wait()
        raise
    reader.stop()


class _Reader:
    """The threads: one takes the items, up to `threads` others do the work."""

    def __init__(self, source: Iterator[Any], work: Callable[[Any], Any], threads: int):
        self._source, self._work, self._most = source, work, threads
        self._wanted: SimpleQueue[Future | None] = SimpleQueue()
        self._taken: SimpleQueue[tuple[Future, Any] | None] = SimpleQueue()
        self._stopped = False
        self._threads: list[threading.Thread] = []
        self._start(self._take)
        _open_readers.add(self)

    def next_result(self) -> Future:
        """The result of the next item that is not asked for yet; _END after the last one."""
        result = Future()
        self._wanted.put(result)
        return result

    def stop(self) -> None:
        self._stopped = True
        self._wanted.put(None)

    def wait(self) -> None:
        """After `stop`: until no work is under way."""
        for thread in self._threads:  # the first one starts the others
            thread.join()

    def _start(self, function: Callable[[], None]) -> None:
        # Daemons, so that a program can end while a stream is left half-way.
        self._threads.append(threading.Thread(target=function, name="read", daemon=True))
        self._threads[-1].start()

    def _take(self) -> None:
        started = 0
        while (result := self._wanted.get()) is not None and not self._stopped:
            try:
                item = next(self._source, _END)
            except BaseException as error:
                result.set_exception(error)
                continue
            if item is _END:
                result.set_result(_END)
                continue
            if started < self._most:
                self._start(self._process)
                started += 1
            self._taken.put((result, item))
        for _ in range(started):
            self._taken.put(None)

    def _process(self) -> None:
        while (taken := self._taken.get()) is not None:
            if not self._stopped:
                _run(self._work, taken[1], taken[0])


def _run(work: Callable[[Any], Any], item: Any, result: Future) -> None:
    try:
        found = work(item)
    except BaseException as error:
        result.set_exception(error)
        del result  # it holds the error, whose traceback holds this frame
    else:
        result.set_result(found)


def _end_all() -> None:
    """Lets work end that is under way, such as a file being written, when the program ends."""
    readers = list(_open_readers)
    for reader in readers:
        reader.stop()
    for reader in readers:
        reader.wait()


_open_readers: weakref.WeakSet[_Reader] = weakref.WeakSet()
atexit.register(_end_all)
