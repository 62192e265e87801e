"""The bytes of an image that someone sends, under limits of size and time.

Pixels have a limit, too: see data/images.py, which looks at the header before it decodes.
"""

import asyncio
import contextlib

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

MAX_BYTES = 32 * 2**20
SECONDS = 60.0  # for a whole upload
LINGER, IDLE = 30.0, 2.0  # seconds for the rest of a refused one, and without anything of it
_CLOSE = {"Connection": "close"}


class UploadRefusal(JSONResponse):
    """An answer in the middle of an upload, whose rest is thrown away for a while.

    Were the connection closed at once, it would be reset, and a client that sends everything before
    it reads would never see the answer.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, then reads on."""
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while (await asyncio.wait_for(receive(), IDLE)).get("more_body"):
                    pass
        await send({"type": "http.response.body"})


async def read_upload(request: Request, name: str, seconds: float = SECONDS) -> bytes:
    """The body of a request, of which never more than MAX_BYTES are in memory.

    Raises:
      HTTPException: 413 as soon as it is known to be larger, before it is read where its length
        was declared; 408 after so many seconds.
    """
    if int(request.headers.get("content-length", 0)) > MAX_BYTES:
        raise _too_many_bytes(name)
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > MAX_BYTES:
                    raise _too_many_bytes(name)
                parts.append(part)
    except TimeoutError as error:
        detail = f"{name}: did not arrive within {seconds:g} seconds; send it again"
        raise HTTPException(408, detail, _CLOSE) from error
    return b"".join(parts)


def _too_many_bytes(name: str) -> HTTPException:
    detail = f"{name}: is larger than {MAX_BYTES / 2**20:g} MiB; scale it down or save it as JPEG"
    return HTTPException(413, detail, _CLOSE)
