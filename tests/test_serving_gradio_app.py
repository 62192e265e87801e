"""The Gradio app through its API and in a real browser: detections, sliders, limits, no network."""

import io
import json
import signal
import socket
import struct
import sys
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

pytest.importorskip("gradio", reason="the extra [serve] is not installed")

from browser import find_browser, opened
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from served_detector import served
from small_detector import TALL, WIDE, small_detector

from retinanet_jax.cli import app
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.video import Video, VideoWriter
from retinanet_jax.serving import page_server

NAMES = ["ant", "bee", "cat", "dog", "elk"]


@pytest.fixture(scope="module", params=[pytest.param("served", marks=pytest.mark.extended)])
def server():
    with served() as started:
        yield started


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("client")
    return Client(server.url, verbose=False, analytics_enabled=False, download_files=str(folder))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    pixels = np.random.default_rng(5).integers(0, 256, (*WIDE, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "000000000139.png")  # COCO names images by their ids
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(pixels).save(folder / "upright.png", exif=exif)
    Image.fromarray(pixels).resize((3200, 2400)).save(folder / "large.jpg")
    (folder / "words.jpg").write_text("not an image")
    (folder / "bomb.png").write_bytes(png_that_claims(50_000, 50_000))
    return folder


def png_that_claims(width: int, height: int) -> bytes:
    """A well-formed PNG of some bytes, whose header declares any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def detect(client, file: Path, score=0.1, iou=0.5, classes=()):
    """(path of the drawn image, summary, results)."""
    return client.predict(handle_file(file), score, iou, list(classes), api_name="/detect")


@pytest.mark.parametrize(
    ("score", "iou", "classes"), [(0.4, 0.5, []), (0.05, 0.0, []), (0.05, 1.0, ["dog", "ant"])]
)
def test_results_are_those_of_the_detector(client, files, score, iou, classes):
    file = files / "000000000139.png"
    detector = small_detector().with_postprocess(nms_iou=iou)
    expected = detector(file, threshold=score, classes=classes or None)
    drawn, summary, results = detect(client, file, score, iou, classes)
    assert len(expected) > 1 and summary.startswith(f"{len(expected)} objects in 96 x 64 pixels")
    assert Image.open(drawn).size == (480, 320)
    for result, wanted in zip(results, expected.to_coco(139), strict=True):
        assert result["image_id"] == 139 and result["category_id"] == wanted["category_id"]
        assert result["score"] == pytest.approx(wanted["score"], abs=1e-5)
        assert result["bbox"] == pytest.approx(wanted["bbox"], abs=1e-2)


def test_an_image_is_turned_as_exif_says(client, files):
    drawn, summary, results = detect(client, files / "upright.png")
    assert f"in {TALL[1]} x {TALL[0]} pixels" in summary and Image.open(drawn).size == (320, 480)
    assert len(results) == len(small_detector()(files / "upright.png", threshold=0.1))


def test_boxes_of_a_large_image_are_in_its_pixels(client, files):
    drawn, summary, results = detect(client, files / "large.jpg", score=0.05)
    assert "in 3200 x 2400 pixels" in summary and Image.open(drawn).size == (1600, 1200)
    assert max(result["bbox"][0] + result["bbox"][2] for result in results) > 1600


@pytest.mark.parametrize(
    ("name", "message"),
    [("words.jpg", "cannot be decoded"), ("bomb.png", "has more than 178,956,970 pixels")],
)
def test_files_that_are_not_images_are_reported_by_name(server, client, files, name, message):
    before = server.memory
    with pytest.raises(AppError, match=f"^{name}: .*{message}"):
        detect(client, files / name)
    assert server.memory - before < 50e6
    assert detect(client, files / "000000000139.png")[2]


def test_a_large_upload_is_refused(server, tmp_path):
    boundary = b"x" * 8
    head = b"--" + boundary + b'\r\nContent-Disposition: form-data; name="files"; filename="a.png"'
    body = io.BytesIO(head + b"\r\n\r\n" + bytes(33 * 2**20) + b"\r\n--" + boundary + b"--\r\n")
    request = urllib.request.Request(f"{server.url}/gradio_api/upload", body.getvalue())
    request.add_header("Content-Type", f"multipart/form-data; boundary={boundary.decode()}")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code == 413 and b"maximum allowed size" in refused.value.read()


def test_files_of_the_server_cannot_be_named(server, files):
    """The API takes the path of an upload, and no other."""
    data = {"path": str(files / "000000000139.png"), "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [data, 0.1, 0.5, []]}).encode()
    request = urllib.request.Request(f"{server.url}/gradio_api/call/detect", body)
    request.add_header("Content-Type", "application/json")
    event = json.load(urllib.request.urlopen(request, timeout=60))["event_id"]
    url = f"{server.url}/gradio_api/call/detect/{event}"
    assert b"event: error" in urllib.request.urlopen(url, timeout=60).read()


def test_a_video_is_drawn_frame_by_frame(client, tmp_path):
    with VideoWriter(tmp_path / "clip.mp4", 10) as writer:
        for seed in range(6):
            frame = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)
            writer.write(cv2.resize(frame, WIDE[::-1], interpolation=cv2.INTER_NEAREST))
    clip = handle_file(tmp_path / "clip.mp4")
    drawn = client.predict(clip, 0.1, 0.5, [], api_name="/detect_video")
    drawn = Video(drawn["video"] if isinstance(drawn, dict) else drawn)
    frames, originals = list(drawn), list(Video(tmp_path / "clip.mp4"))
    assert len(frames) == 6 and drawn.rate == pytest.approx(10)
    assert all(np.abs(a.astype(int) - b).max() > 50 for a, b in zip(frames, originals, strict=True))


def test_a_damaged_video_is_reported(client, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    clip = handle_file(tmp_path / "bad.mp4")
    with pytest.raises(AppError, match=r"bad\.mp4: cannot be opened"):
        client.predict(clip, 0.1, 0.5, [], api_name="/detect_video")


def test_requests_for_other_hosts_are_refused(server):
    """As DNS rebinding makes them."""
    request = urllib.request.Request(server.url, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code == 400
    answer = urllib.request.urlopen(server.url, timeout=60)
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]


@pytest.mark.extended
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_compiles_ends_the_server(number, monkeypatch, tmp_path):
    """And leaves no uploads behind."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with served("compiling") as started:
        while started.process.poll() is None:  # the address is printed before the server listens
            try:
                urllib.request.urlopen(started.url, timeout=60)
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        started.process.send_signal(number)
        assert started.process.wait(300) == 0
        assert started.process.stdout.read().endswith("stopped\n")
    assert not list(tmp_path.glob("retinanet_jax_serve_*"))


def test_a_port_in_use_is_reported():
    with page_server.open_port("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DataError, match=f"127.0.0.1:{port}: cannot listen there"):
            page_server.open_port("127.0.0.1", port)
    for host, port in (("no.such.host.invalid", 0), ("127.0.0.1", 99999)):
        with pytest.raises(DataError, match="cannot listen there"):
            page_server.open_port(host, port)


def test_an_open_port_warns(monkeypatch, capsys):
    class Anywhere(socket.socket):
        def getsockname(self):
            return "0.0.0.0", 8000

    monkeypatch.setattr(socket, "create_server", lambda *_, **__: Anywhere())
    page_server.open_port("0.0.0.0", 8000)
    assert "warning: 0.0.0.0 is open to the network" in capsys.readouterr().err


def test_a_missing_extra_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SystemExit, match=r"pip install 'retinanet_jax\[serve\]'"):
        app.main(["serve", "--model=runs/small"])


# In a browser.


@pytest.fixture(scope="module")
def browser(server, tmp_path_factory):
    if find_browser() is None:
        pytest.skip("no Chromium here")
    with opened(f"{server.url}/", tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser, files):
    """The page, loaded again, with an image."""
    browser.load(browser.run("location.href"))
    browser.wait("document.querySelector('input[type=file]') !== null")
    browser.choose("input[type=file]", files / "000000000139.png")
    browser.wait(f"({SUMMARY}).includes('objects in 96 x 64')")
    return browser


SUMMARY = "[...document.querySelectorAll('.prose p')].map(p => p.textContent).join(' ')"


def slide(page, number: int, value: float) -> None:
    """Moves a slider, as a pointer does."""
    slider = f"document.querySelectorAll('input[type=range]')[{number}]"
    page.run(
        f"{slider}.value = {value}; {slider}.dispatchEvent(new Event('input', {{bubbles: true}}));"
        f"{slider}.dispatchEvent(new Event('pointerup', {{bubbles: true}}))"
    )


def test_sliders_act_and_the_json_is_what_they_show(page, files, tmp_path):
    for score, iou in ((0.6, 0.5), (0.6, 0.2), (0.3, 1.0)):
        detector = small_detector().with_postprocess(nms_iou=iou)
        expected = detector(files / "000000000139.png", threshold=score)
        slide(page, 0, score)
        slide(page, 1, iou)
        page.wait(f"({SUMMARY}).includes('{len(expected)} objects in')")
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    button = "[...document.querySelectorAll('button')].find(b => b.textContent.includes('JSON'))"
    page.run(f"({button}).click()")
    path, end = tmp_path / "000000000139.json", time.monotonic() + 60
    while not path.exists() or not path.read_text(encoding="utf-8"):
        assert time.monotonic() < end, "nothing was downloaded"
        time.sleep(0.05)
    results = json.loads(path.read_text(encoding="utf-8"))
    assert [r["category_id"] for r in results] == [r["category_id"] for r in expected.to_coco(139)]


def test_an_invalid_file_shows_its_message_and_the_next_image_is_taken(page, files):
    page.run("document.querySelector('button[aria-label=\"Remove Image\"]').click()")
    page.wait(f"!({SUMMARY}).includes('objects in')")
    page.wait("document.querySelector('input[type=file]') !== null")
    page.choose("input[type=file]", files / "words.jpg")
    page.wait("document.body.innerText.includes('words.jpg: its 12 bytes cannot be decoded')")


def test_the_page_asks_no_other_host(page, server):
    """Nor does it try to: the policy that forbids it would log an error."""
    others = [u for u in page.urls if not u.startswith((server.url, "data:", "blob:"))]
    assert len(page.urls) > 10 and not others
    refused = [e for e in page.errors if "Content Security Policy" in json.dumps(e)]
    assert not refused


@pytest.mark.parametrize("width", [360, 1400])
def test_nothing_is_cut_off_at_any_width(page, width):
    page.resize(width, 800)
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    page.resize(1280, 900)
