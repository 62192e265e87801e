"""The bytes of a picture that someone sends, under limits of size and time.

Pixels have a limit, too: see data/images.py, which looks at the header before it decodes.
"""

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import Request

MAX_BYTES = 32 * 2**20
SECONDS = 60.0  # for a whole upload
# Else the server would read on, though it keeps nothing.
_CLOSE = {"Connection": "close"}


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
