"""The page of `retinanet-jax serve` in a real browser: what it shows and what it downloads."""

import json
import time

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the extra [serve] is not installed")
pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")

from browser import find_browser, opened
from served_detector import served
from small_detector import WIDE, small_network

from retinanet_jax.inference.predict import Trained
from retinanet_jax.metrics.coco import to_coco_results
from retinanet_jax.serving.sweep import IouSweep

if find_browser() is None:
    pytest.skip("there is no Chromium here", allow_module_level=True)

IMAGE = "000000000139.png"  # named as COCO does, by the image's id


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    pixels = np.random.default_rng(5).integers(0, 256, (*WIDE, 3), np.uint8)
    Image.fromarray(pixels).save(folder / IMAGE)
    Image.fromarray(pixels[::-1]).save(folder / "other.png")
    (folder / "words.jpg").write_text("no image at all")
    return folder


@pytest.fixture(scope="module")
def sweep():
    return IouSweep(Trained(*small_network()))


@pytest.fixture(scope="module")
def found(files, sweep):
    return sweep(np.asarray(Image.open(files / IMAGE)))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    profile = tmp_path_factory.mktemp("profile")
    with served() as server, opened(f"http://127.0.0.1:{server.port}/", profile) as page:
        yield page
        assert not page.faults


@pytest.fixture
def page(browser, files):
    """The page anew, with the image."""
    browser.load(browser.run("location.href"))
    browser.wait("document.getElementById('status')?.textContent === 'Ready.'")
    choose(browser, files / IMAGE)
    return browser


def choose(page, file):
    page.choose("#file", file)
    page.wait(f"document.getElementById('status').textContent.startsWith('{file.name}: ')")


def slide(page, name: str, value) -> None:
    slider = f"document.getElementById('{name}')"
    page.run(f"{slider}.value = {value}; {slider}.dispatchEvent(new Event('input'))")


def downloaded(page, button: str, folder, name: str):
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    page.run(f"document.getElementById('{button}').click()")
    end = time.monotonic() + 30
    while not (folder / name).exists():
        assert time.monotonic() < end, f"{name} never came"
        time.sleep(0.05)
    return folder / name


def listed(page) -> list[int]:
    """Indices of the detections in the list."""
    return page.run("[...document.querySelectorAll('#objects button')].map(b => Number(b.value))")


@pytest.mark.parametrize(("score", "iou"), [(0.4, 0.5), (0.05, 0.0), (0.05, 1.0), (0.99, 0.5)])
def test_the_downloaded_results_are_those_of_the_detector(page, sweep, found, tmp_path, score, iou):
    slide(page, "score", score)
    slide(page, "iou", sweep.ious.index(iou))
    kept = np.array(found.kept[sweep.ious.index(iou)])
    kept = kept[found.scores.astype(np.float32)[kept] > np.float32(score)]
    assert listed(page) == kept.tolist()
    path = downloaded(page, "save_json", tmp_path, "000000000139.json")
    parts = found.boxes[kept], found.scores[kept], found.labels[kept]
    expected = to_coco_results(139, *parts, sweep.categories)
    results = json.loads(path.read_text())
    assert [r["category_id"] for r in results] == [r["category_id"] for r in expected]
    for result, wanted in zip(results, expected, strict=True):
        assert result["image_id"] == 139 and result.keys() == wanted.keys()
        assert result["score"] == pytest.approx(wanted["score"], rel=1e-5)
        assert result["bbox"] == pytest.approx(wanted["bbox"], abs=1e-3)


def test_a_class_is_hidden_and_stays_so_for_the_next_image(page, found, files):
    slide(page, "score", 0.05)
    hidden = int(found.labels[found.kept[10][0]])
    page.run(f"document.querySelector('#classes input[value=\"{hidden}\"]').click()")
    shown = listed(page)
    assert shown == [i for i in found.kept[10] if found.labels[i] != hidden]
    choose(page, files / "other.png")
    names = page.run("[...document.querySelectorAll('#objects .name')].map(n => n.textContent)")
    assert names and ["ant", "bee", "cat", "dog", "elk"][hidden] not in names
    page.run("document.getElementById('all').click()")
    assert len(listed(page)) > len(names)
    page.run("document.getElementById('all').click()")
    assert listed(page) == []


def test_pointing_tells_class_and_score(page, found):
    slide(page, "score", 0.05)
    index = max(found.kept[10], key=lambda i: np.prod(found.boxes[i, 2:] - found.boxes[i, :2]))
    page.run("scrollTo(0, 0)")
    left, top, width = page.run(
        "(r => [r.left, r.top, r.width])(document.getElementById('boxes').getBoundingClientRect())"
    )
    scale = width / WIDE[1]
    x1, y1, x2, y2 = found.boxes[index]
    page.move(left + scale * (x1 + x2) / 2, top + scale * (y1 + y2) / 2)
    name, score = page.wait("document.getElementById('tip').textContent").split()
    assert name in ("ant", "bee", "cat", "dog", "elk") and 0 < float(score) < 1
    active = page.run("document.querySelector('#objects .active').textContent")
    assert active == name + score
    page.move(1, 1)
    assert page.run("document.getElementById('tip').hidden")


def test_the_keyboard_reaches_everything(page):
    page.run("document.activeElement.blur()")
    reached = []
    for _ in range(14):
        page.press("Tab", 9)
        reached.append(page.run("document.activeElement.id || document.activeElement.type"))
        if reached[-1] == "score":
            before = float(page.run("document.activeElement.value"))
            page.press("ArrowLeft", 37)
            after = page.run("document.getElementById('score_value').textContent")
            assert float(after) == pytest.approx(before - 0.01)
    wanted = ["file", "score", "iou", "all", *["checkbox"] * 5, "save_json", "save_image"]
    assert [name for name in reached if name != "objects"][: len(wanted)] == wanted
    assert reached[len(wanted) :].count("button") >= 2
    assert page.run("document.querySelectorAll('#objects .active').length") == 1


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_image_is_dropped_or_pasted(page, kind):
    carried = "dataTransfer" if kind == "drop" else "clipboardData"
    made = "DragEvent" if kind == "drop" else "ClipboardEvent"
    page.run(f"""(async () => {{
        const canvas = Object.assign(document.createElement("canvas"), {{width: 40, height: 30}});
        canvas.getContext("2d").fillRect(5, 5, 9, 9);
        const blob = await new Promise((done) => canvas.toBlob(done));
        const data = new DataTransfer();
        data.items.add(new File([blob], "{kind}.png"));
        data.items.add(new File(["another"], "second.png"));
        const options = {{{carried}: data, bubbles: true}};
        document.body.dispatchEvent(new {made}("{kind}", options));
    }})()""")
    page.wait(f"document.getElementById('status').textContent.startsWith('{kind}.png: 40 x 30')")
    assert "of 2, this is the first" in page.run("document.getElementById('note').textContent")


def test_what_the_detector_sees_otherwise_is_told(page, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (5000, 400)).save(tmp_path / "long.jpg", exif=exif)
    choose(page, tmp_path / "long.jpg")
    note = page.run("document.getElementById('note').textContent")
    assert "EXIF" in note and "4096 x 328 pixels" in note
    ratio = page.run("(r => r.width / r.height)(document.getElementById('boxes'))")
    assert ratio == pytest.approx(12.5, rel=0.05)


def test_what_is_no_image_is_told_and_the_next_one_is_taken(page, files):
    page.choose("#file", files / "words.jpg")
    said = page.wait("document.getElementById('error').textContent")
    assert said.startswith("words.jpg: ") and "cannot be decoded" in said
    choose(page, files / "other.png")
    assert page.run("document.getElementById('error').hidden")
    page.faults.clear()  # the browser notes the answer 422


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ('Blob.prototype.arrayBuffer = () => Promise.reject(new TypeError("x"))', "is a folder"),
        ('fetch = () => Promise.reject(new TypeError("Failed"))', "The server does not answer"),
        ('fetch = async () => new Response("<html>", { status: 502 })', "its answer is no JSON"),
        ('fetch = async () => new Response("{}")', "this page cannot show it"),
        (
            'fetch = async () => new Response(\'{"error": "out of memory"}\', { status: 500 })',
            "other.png: the server failed (out of memory)",
        ),
    ],
)
def test_what_goes_wrong_is_a_sentence_beside_the_image_before(page, files, broken, said):
    page.run(f"void ({broken})")
    page.choose("#file", files / "other.png")
    error = page.wait("document.getElementById('error').textContent")
    assert said in error and "TypeError" not in error and error.endswith(".")
    status = page.run("document.getElementById('status').textContent")
    assert status.startswith(f"{IMAGE}: ") and listed(page)
    page.faults.clear()  # the script's own note in the console


def test_why_there_is_nothing_is_told(page):
    slide(page, "score", 1)
    assert "The best score is 0." in page.run("document.getElementById('nothing').textContent")
    slide(page, "score", 0.4)
    page.run("document.getElementById('all').click()")
    assert "hidden" in page.run("document.getElementById('nothing').textContent")
    page.run("document.getElementById('all').click()")
    assert page.run("document.getElementById('nothing').textContent") == ""


def test_the_downloaded_image_has_the_boxes(page, files, tmp_path):
    path = downloaded(page, "save_image", tmp_path, "000000000139.detections.png")
    drawn = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert drawn.shape == (*WIDE, 3)
    slide(page, "score", 1)
    (tmp_path / "none").mkdir()
    path = downloaded(page, "save_image", tmp_path / "none", "000000000139.detections.png")
    bare = np.asarray(Image.open(path).convert("RGB")).astype(int)
    original = np.asarray(Image.open(files / IMAGE)).astype(int)
    assert np.abs(bare - original).mean() < 20 < np.abs(drawn - bare).max()


@pytest.mark.parametrize("width", [320, 700, 1400])
def test_nothing_is_cut_off_on_any_screen(page, width):
    page.resize(width, 800)
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    left, right = page.run(
        "(r => [r.left, r.right])(document.getElementById('image').getBoundingClientRect())"
    )
    assert left >= 0 and right <= width and right - left > 0.4 * min(width, 700)
    page.resize(1280, 900)
