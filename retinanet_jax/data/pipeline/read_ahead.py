"""Processes the items of a stream in threads, ahead of the consumer, in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

_END = object()


def read_ahead(
    items: Iterable[Any], work: Callable[[Any], Any], *, threads: int, ahead: int
) -> Iterator[Any]:
    """`work(item)` of each item, in their order, up to `ahead` of them made in advance.

    A separate thread takes the items, so that a stream that is read in order, such as a video, is
    read in advance, too. An error in `work` is raised at its item's turn. When
    the iterator is closed, what has not begun is left out.
    """
    source = iter(items)
    with (
        ThreadPoolExecutor(threads, thread_name_prefix="read") as workers,
        ThreadPoolExecutor(1, thread_name_prefix="take") as taker,
    ):

        def take() -> Future | None:
            item = next(source, _END)
            return None if item is _END else workers.submit(work, item)

        coming = deque(taker.submit(take) for _ in range(ahead))
        try:
            while (working := coming.popleft().result()) is not None:
                coming.append(taker.submit(take))
                yield working.result()
        finally:
            taker.shutdown(cancel_futures=True)
            workers.shutdown(cancel_futures=True)
