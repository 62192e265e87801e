"""The desk before the device: one at a time is served, a few wait, and all others come again."""

import asyncio
import concurrent.futures
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from starlette.exceptions import HTTPException

MAX_INSIDE = 8  # each may hold an upload in memory


class Desk:
    """Work on the device, one piece at a time, in a thread of its own."""

    def __init__(self):
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "device")
        self._turn = asyncio.Lock()
        self._inside = 0
        self._work = concurrent.futures.Future()

    @property
    def busy(self) -> bool:
        """Whether the thread is at work, also where nobody waits for it any more."""
        return self._work.running()

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place inside for a request, from before its upload until after its answer.

        Raises:
          HTTPException: 503, all places are taken.
        """
        if self._inside >= MAX_INSIDE:
            detail = f"busy: {MAX_INSIDE} images are waiting already; try again"
            raise HTTPException(503, detail, {"Retry-After": "1"})
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
        """Waits for the turn, and gives a function that works in the device's thread."""
        async with self._turn:
            yield self._start

    def _start(self, work: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
        self._work = self._thread.submit(work, *arguments)
        return asyncio.wrap_future(self._work)
