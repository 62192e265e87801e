"""What the server answers: the page, the model, and detections in an image that is sent.

GET /        the page, with its script and styles
GET /model   classes, thresholds, and whether the network is compiled yet
POST /detect the bytes of an image (`?name=` for messages); detections at every IoU of NMS

Errors are {"error": text}: 403 another site asks, 408 too slow, 413 too many bytes, 422 no image
or too many pixels, 500 an error, 503 busy.
"""

import base64
import io
import json
import time
from importlib import resources
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.images import decode, is_shown_rotated
from retinanet_jax.inference.drawing import class_color
from retinanet_jax.serving.desk import Desk
from retinanet_jax.serving.guard import Guard
from retinanet_jax.serving.sweep import IouSweep
from retinanet_jax.serving.uploads import MAX_BYTES, UploadRefusal, read_upload

# By path: the package, the file and its type.
FILES = {
    "/": ("serving", "static/index.html", "text/html"),
    "/serve.css": ("serving", "static/serve.css", "text/css"),
    "/serve.js": ("serving", "static/serve.js", "text/javascript"),
    "/drawing.js": ("serving", "static/drawing.js", "text/javascript"),
    "/style.css": ("page", "style.css", "text/css"),
}
# The page takes nothing from elsewhere, and stands in no other page.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
SHOWN_SIDE = 4096  # longest side in pixels of the image that is shown
QUALITY = 95
LEAST_SCORE = 0.4  # shown at first, as `retinanet-jax detect` has it
LONGEST_NAME = 200


class Studio:
    """A detector and the desk before it."""

    def __init__(self, detector: IouSweep, name: str):
        self._detector, self._name = detector, name
        self.desk = Desk()
        self._ready = False

    async def warm_up(self) -> None:
        """Compiles the network; images that come before wait for it."""
        async with self.desk.turn() as work:
            await work(self._detector.warm_up)
        self._ready = True

    async def model(self, request: Request) -> Response:
        """What the page has to know before the first image."""
        categories, limits = self._detector.categories, self._detector.config.postprocess
        pairs = zip(categories.names, categories.ids, strict=True)
        return JSONResponse(
            {
                "name": self._name,
                "ready": self._ready,
                "device": jax.devices()[0].device_kind,
                "classes": [
                    {"name": name, "id": number, "color": class_color(label)}
                    for label, (name, number) in enumerate(pairs)
                ],
                "ious": self._detector.ious,
                "nms_iou": limits.nms_iou,
                "score_threshold": limits.score_threshold,
                "shown_score": max(LEAST_SCORE, limits.score_threshold),
                "max_detections": limits.max_detections,
                "max_bytes": MAX_BYTES,
            }
        )

    async def detect(self, request: Request) -> Response:
        """Detections in the image that is the body of the request."""
        name = request.query_params.get("name", "image")[:LONGEST_NAME]
        with self.desk.place():
            data = await read_upload(request, name)
            async with self.desk.turn() as work:
                if await request.is_disconnected():  # the page has another image by now
                    raise ClientDisconnect
                answer = await work(self._answer, data, name)
        return Response(answer, media_type="application/json")

    def _answer(self, data: bytes, name: str) -> str:
        image = decode(data, name)
        start = time.perf_counter()
        found = self._detector(image)
        seconds = time.perf_counter() - start
        return json.dumps(
            {
                "size": image.shape[:2],
                "boxes": found.boxes.tolist(),
                "scores": found.scores.tolist(),
                "labels": found.labels.tolist(),
                "kept": found.kept,
                "seconds": seconds,
                "rotated": is_shown_rotated(data),
                "image": _data_url(image),
            }
        )


def create_app(studio: Studio, host: str) -> Starlette:
    """The application, for requests that name it as `host` or by an address."""
    return Starlette(
        routes=[
            *(Route(path, _file(*place)) for path, place in FILES.items()),
            Route("/model", studio.model),
            Route("/detect", studio.detect, methods=["POST"]),
        ],
        middleware=[Middleware(Guard, host=host)],
        exception_handlers={
            HTTPException: lambda _, e: _refusal(e.detail, e.status_code, e.headers),
            DataError: lambda _, e: _refusal(str(e), 422),
            ClientDisconnect: lambda *_: Response(status_code=400),  # nobody reads it
            Exception: lambda _, e: _refusal(f"{type(e).__name__}: {e}", 500),
        },
    )


def _file(package: str, file: str, media_type: str):
    content = (resources.files("retinanet_jax") / package / file).read_bytes()

    async def answer(request: Request) -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return answer


def _refusal(text: str, status: int, headers: Any = None) -> Response:
    kind = UploadRefusal if status in (408, 413) else JSONResponse
    return kind({"error": text}, status, headers)


def _data_url(image: UInt8[np.ndarray, "h w 3"]) -> str:
    """The image as the network sees it, which no browser has to decode itself: TIFF, EXIF."""
    picture, data = Image.fromarray(image), io.BytesIO()
    picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    picture.save(data, "JPEG", quality=QUALITY, subsampling=0)  # colours at full size
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
