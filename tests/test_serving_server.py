"""`retinanet-jax serve`: what is found at every IoU, what is refused, and what it survives."""

import asyncio
import base64
import concurrent.futures
import contextlib
import dataclasses
import http.client
import io
import json
import select
import signal
import socket
import struct
import sys
import time
import zlib

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the extra [serve] is not installed")
pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")

from served_detector import served
from small_detector import TALL, WIDE, small_detector, small_network
from starlette.exceptions import HTTPException
from starlette.requests import Request

from retinanet_jax.cli import app
from retinanet_jax.core.postprocess import Detections
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.inference.predict import Trained
from retinanet_jax.serving import server as server_module
from retinanet_jax.serving.desk import MAX_INSIDE
from retinanet_jax.serving.sweep import IouSweep, merge_ious
from retinanet_jax.serving.uploads import MAX_BYTES, read_upload
from retinanet_jax.serving.web import Studio, create_app


@pytest.fixture(scope="module")
def sweep():
    return IouSweep(Trained(*small_network()))


@pytest.fixture(scope="module")
def server():
    with served() as started:
        yield started


def noise(seed: int = 0, size: tuple[int, int] = WIDE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def encoded(image: np.ndarray, kind: str = "PNG", **options) -> bytes:
    data = io.BytesIO()
    Image.fromarray(image).save(data, kind, **options)
    return data.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """A well-formed PNG of some bytes, whose header is as large as one likes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "fields", [{"nms_iou": 0.3}, {"nms_iou": 0.75, "score_threshold": 0.2}, {"nms_iou": 1.0}]
)
def test_each_notch_is_what_the_detector_gives_at_that_iou(sweep, fields):
    image = noise(1, TALL)
    expected = small_detector().with_postprocess(**fields)(image)
    found = sweep(image)
    kept = np.array(found.kept[sweep.ious.index(fields["nms_iou"])])
    kept = kept[found.scores[kept] > np.float32(fields.get("score_threshold", 0))]
    assert len(expected) > 5
    np.testing.assert_array_equal(found.labels[kept], expected.labels)
    np.testing.assert_allclose(found.scores[kept], expected.scores, rtol=1e-5)
    np.testing.assert_allclose(found.boxes[kept], expected.boxes, atol=1e-3)


def test_nothing_compiles_after_warm_up(sweep):
    sweep.warm_up()
    programs = sweep.predict_fn._cache_size()
    for size in (TALL, WIDE, (50, 200), (200, 200)):
        assert len(sweep(noise(2, size)).kept) == len(sweep.ious)
    assert sweep.predict_fn._cache_size() == programs


def test_nothing_found_at_some_iou_or_at_any():
    boxes = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
    found = Detections(boxes, boxes[..., 0], boxes[..., 0].astype(np.int32), boxes[..., 0] < 0)
    swept = merge_ious(found)
    assert swept.boxes.shape == (0, 4) and swept.kept == [[], [], []]
    valid = np.array([[True, True], [False, False], [True, False]])
    swept = merge_ious(found._replace(valid=valid))
    assert swept.labels.tolist() == [0, 4, 16] and swept.kept == [[0, 1], [], [2]]


def test_an_iou_of_the_config_is_a_notch():
    variables, config, categories = small_network()
    postprocess = dataclasses.replace(config.postprocess, nms_iou=0.625)
    config = dataclasses.replace(config, postprocess=postprocess)
    ious = IouSweep(Trained(variables, config, categories)).ious
    assert 0.625 in ious and ious == sorted(ious) and len(ious) == 22


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP", "JPEG", "grey"])
def test_formats(server, sweep, kind):
    image = noise(3)
    if kind == "grey":
        data = encoded(image[:, :, 0])
        image = np.repeat(image[:, :, :1], 3, axis=2)
    else:
        data = encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {}))
        image = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    status, answer = server.detect(data)
    assert status == 200 and answer["size"] == list(WIDE) and not answer["rotated"]
    expected = sweep(image)
    if kind == "JPEG":  # two decoders
        assert len(answer["kept"]) == len(expected.kept)
    else:
        assert answer["kept"] == expected.kept
        np.testing.assert_allclose(answer["boxes"], expected.boxes, atol=1e-3)
    content = answer["image"].removeprefix("data:image/jpeg;base64,")
    shown = Image.open(io.BytesIO(base64.b64decode(content)))
    assert shown.format == "JPEG" and shown.size == WIDE[::-1]


def test_a_image_that_exif_rotates_is_told(server):
    exif = Image.Exif()
    exif[0x0112] = 6
    status, answer = server.detect(encoded(noise(), "JPEG", exif=exif))
    assert status == 200 and answer["rotated"] and answer["size"] == list(WIDE)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"no image at all, only words\n", "cannot be decoded"),
        (b"", "is an empty file"),
        (encoded(noise(), "JPEG")[:-400], "the end of the JPEG is missing"),
        (png_that_claims(50_000, 50_000), "more than 178,956,970 pixels (50000 x 50000"),
        (png_that_claims(64, 64), "cannot be decoded"),
    ],
)
def test_what_is_no_image_is_refused_with_its_name(server, data, said):
    before = server.memory
    status, answer = server.detect(data, "holiday.jpg")
    assert status == 422
    assert answer["error"].startswith("holiday.jpg: ") and said in answer["error"]
    assert server.memory - before < 50e6


def test_other_paths_and_methods(server):
    assert server.ask("GET", "/nothing")[:2] == (404, {"error": "Not Found"})
    assert server.ask("GET", "/detect")[:2] == (405, {"error": "Method Not Allowed"})


def test_what_declares_a_gigabyte_is_not_read(server):
    head = f"POST /detect?name=big.jpg HTTP/1.1\r\nHost: localhost\r\nContent-Length: {2**30}"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(f"{head}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 413") and b"big.jpg: is larger than 32 MiB" in answer


def test_a_client_that_sends_everything_first_reads_the_refusal(server):
    data = bytes(4 * MAX_BYTES)
    chunks = (data[at : at + 2**20] for at in range(0, len(data), 2**20))
    for body in (data, chunks):  # with its length, and without
        before = server.memory
        status, answer = server.detect(body, "big.jpg")
        assert status == 413 and "big.jpg: is larger than 32 MiB" in answer["error"]
        assert server.memory - before < 3 * MAX_BYTES


def test_a_gigabyte_without_a_length_is_refused_when_it_is_too_much(server):
    before, most, sent = server.memory, 0, 0
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.putrequest("POST", "/detect")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    part = bytes(2**20)
    while not select.select([connection.sock], [], [], 0)[0]:  # until there is an answer
        connection.send(b"100000\r\n" + part + b"\r\n")
        sent += len(part)
        most = max(most, server.memory)
    assert connection.getresponse().status == 413
    connection.close()
    assert MAX_BYTES <= sent < 3 * MAX_BYTES
    assert most - before < 3 * MAX_BYTES


def test_an_upload_without_end_is_ended():
    async def receive():
        await asyncio.sleep(60)

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    with pytest.raises(HTTPException, match=r"did not arrive within 0\.01 seconds") as refused:
        asyncio.run(read_upload(request, "x.jpg", seconds=0.01))
    assert refused.value.status_code == 408


def test_fifty_at_once_are_all_answered(server):
    data = encoded(noise(4, (1600, 2400)))  # more than sockets hold
    with concurrent.futures.ThreadPoolExecutor(50) as threads:
        asking = [threads.submit(server.ask, "POST", "/detect", data) for _ in range(50)]
        answers = [asked.result() for asked in asking]
    found = [answer for status, answer, _ in answers if status == 200]
    refused = [(answer, headers) for status, answer, headers in answers if status == 503]
    assert len(found) + len(refused) == 50 and len(found) >= 8
    assert all(answer["kept"] == found[0]["kept"] for answer in found)
    for answer, headers in refused:
        assert answer["error"].startswith("busy") and headers["retry-after"] == "1"
    assert server.detect(data)[0] == 200


def test_who_leaves_in_the_middle_takes_no_place_along(server):
    head = b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(head + b"some")
        time.sleep(0.02)
    assert server.detect(encoded(noise()))[0] == 200


@pytest.mark.parametrize("host", ["localhost:80", "127.0.0.1", "[::1]:8000", "192.168.1.7:8000"])
def test_names_and_addresses_of_the_server_are_answered(server, host):
    assert server.ask("GET", "/model", headers={"Host": host})[0] == 200
    origin = {"Host": host, "Origin": f"http://{host}"}
    assert server.ask("POST", "/detect", encoded(noise()), origin)[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8000", "[", ""])
def test_other_names_are_turned_away(server, host):
    status, answer, _ = server.ask("GET", "/model", headers={"Host": host})
    assert status == 403 and "no name of this server" in answer["error"]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:1", "http://["]
)
def test_other_sites_are_turned_away(server, origin):
    status, answer = server.detect(encoded(noise()), Origin=origin)
    assert status == 403 and "another site" in answer["error"]


def test_a_fault_of_the_device_is_told_and_the_next_image_is_answered(sweep, monkeypatch):
    async def detect(application) -> dict:
        async def receive():
            return {"type": "http.request", "body": encoded(noise())}

        async def send(message):
            if message["type"] == "http.response.start":
                said["status"] = message["status"]
            said["body"] = said.get("body", b"") + message.get("body", b"")

        said = {}
        scope = {"type": "http", "method": "POST", "path": "/detect", "query_string": b""}
        with contextlib.suppress(RuntimeError):  # goes on to the server, which prints it
            await application({**scope, "headers": [(b"host", b"localhost")]}, receive, send)
        return said

    async def detect_all():
        application = create_app(Studio(sweep, "small"), "127.0.0.1")
        with monkeypatch.context() as patch:
            patch.setattr(sweep, "predict_fn", broken)
            faults = [await detect(application) for _ in range(MAX_INSIDE + 1)]
        return faults, await detect(application)

    def broken(*_):
        raise RuntimeError("out of memory")

    faults, after = asyncio.run(detect_all())
    for fault in faults:
        assert fault == {"status": 500, "body": b'{"error":"RuntimeError: out of memory"}'}
    assert after["status"] == 200 and json.loads(after["body"])["kept"]


def test_interrupted_while_it_compiles_it_ends_soon_and_the_page_was_there():
    with served("compiling") as started:
        status, model, _ = started.ask("GET", "/model")
        assert status == 200 and not model["ready"]
        assert len(model["classes"]) == 5 and model["name"] == "small"
        started.process.send_signal(signal.SIGINT)
        assert started.process.wait(20) == 0
        assert started.process.stdout.read().endswith("stopped\n")


def test_a_port_that_is_taken_is_told():
    with server_module.open_port("127.0.0.1", 0) as opened:
        port = opened.getsockname()[1]
        with pytest.raises(DataError, match=f"127.0.0.1:{port}: cannot be listened on"):
            server_module.open_port("127.0.0.1", port)
    for host, port in (("no.such.host.invalid", 0), ("127.0.0.1", 99999)):
        with pytest.raises(DataError, match="cannot be listened on"):
            server_module.open_port(host, port)


def test_who_opens_it_to_the_network_is_warned(monkeypatch, capsys):
    class Anywhere(socket.socket):
        def getsockname(self):
            return "0.0.0.0", 8000

    monkeypatch.setattr(socket, "create_server", lambda *_, **__: Anywhere())
    server_module.open_port("0.0.0.0", 8000)
    assert "warning: 0.0.0.0 is open to the network" in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "retinanet_jax.serving.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit, match=r"pip install 'retinanet_jax\[serve\]'"):
        app.main(["serve", "--model=runs/small"])
