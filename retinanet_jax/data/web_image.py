"""Images at HTTP addresses. OpenCV opens these as well, but as videos, which are not turned."""

import http.client
import re
import string
import time
import urllib.parse
import urllib.request
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.image_input import begins_image, decode_shown
from retinanet_jax.data.live_video import LiveVideo, file_stem, without_password

MAX_BYTES = 1 << 28
MAX_SECONDS = 60
_TIMEOUT_SECONDS = 10  # for each answer of the server, as for videos
_CHUNK = 1 << 20
# Content types of videos, whose first bytes may be those of an image.
_VIDEO_TYPES = ("video", "multipart")


class WebImage(NamedTuple):
    """An image at an HTTP address.

    Attributes:
      name: the address, without a password in it.
      pixels: RGB, rotated according to its EXIF orientation.
      length: number of images, as of a video.
    """

    name: str
    pixels: UInt8[np.ndarray, "h w 3"]
    length: int = 1

    @property
    def stem(self) -> str:
        """The name as part of a file name."""
        return file_stem(self.name)

    @property
    def suffix(self) -> str:
        """The suffix of the file on the server, such as '.jpg'; '' without one."""
        return PurePosixPath(urllib.parse.urlsplit(self.name).path).suffix.lower()


def open_live(source: int | str) -> WebImage | LiveVideo:
    """Opens a webcam by number, or the image or video at an address.

    What is at an HTTP address is an image if its first bytes are those of one, like a file without
    a suffix, and the server does not call it a video.

    Raises:
      DataError: see LiveVideo; or the image is damaged, too large or too slow to arrive.
    """
    address = str(source)
    if re.match("https?://", address) and (data := _image_at(address)) is not None:
        name = without_password(address)
        return WebImage(name, decode_shown(data, name))
    return LiveVideo(source)


def _image_at(address: str) -> bytes | None:
    """The bytes of an image; None if there is none, or no answer: LiveVideo says what is wrong."""
    try:
        response = _request(address)
    except (OSError, http.client.HTTPException, ValueError):
        return None
    with response:
        if response.headers.get_content_maintype() in _VIDEO_TYPES:
            return None
        try:
            head = response.read(256)
            return head + _rest(response, address) if begins_image(head) else None
        except (OSError, http.client.HTTPException) as error:
            raise _error(address, f"cannot be read: {error}") from error


def _request(address: str) -> http.client.HTTPResponse:
    """Sends the request; a password in the address is sent if the server asks for it."""
    parts, bare = urllib.parse.urlsplit(address), without_password(address)
    url = urllib.parse.quote(bare, safe=string.punctuation)
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    user, password = (urllib.parse.unquote(part or "") for part in (parts.username, parts.password))
    passwords.add_password(None, url, user, password)
    opener = urllib.request.build_opener(
        urllib.request.HTTPBasicAuthHandler(passwords),
        urllib.request.HTTPDigestAuthHandler(passwords),
    )
    request = urllib.request.Request(url, headers={"User-Agent": "retinanet_jax"})
    return opener.open(request, timeout=_TIMEOUT_SECONDS)


def _rest(response: http.client.HTTPResponse, address: str) -> bytes:
    content, end = bytearray(), time.monotonic() + MAX_SECONDS
    while chunk := response.read1(_CHUNK):
        content += chunk
        if len(content) > MAX_BYTES:
            raise _error(address, f"is larger than {MAX_BYTES >> 20} MiB")
        if time.monotonic() > end:
            raise _error(address, f"has not arrived after {MAX_SECONDS} s")
    return bytes(content)


def _error(address: str, what: str) -> DataError:
    fix = "download it, and pass the file"
    return DataError("web image", without_password(address), "", what, fix)
