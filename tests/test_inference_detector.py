"""The Detector: images of all kinds, streams, choices, views, processes; what it compiles."""

import concurrent.futures
import dataclasses
import gc
import multiprocessing
import pickle
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from small_detector import TALL, WIDE, small_detector

import retinanet_jax
from retinanet_jax.config.settings import ConfigError
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.image_input import read_image
from retinanet_jax.data.video import Video, VideoWriter
from retinanet_jax.inference.detector import Detector
from retinanet_jax.inference.results import ImageDetections
from retinanet_jax.inference.streaming import PATIENCE, QUEUED, Stream
from retinanet_jax.inference.test_time_augmentation import PLAIN, View, map_back, merge


@pytest.fixture(scope="module")
def detector():
    return small_detector(batch_size=3)


def make_image(seed: int, size=WIDE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_NEAREST)


def assert_same(found, wanted, atol=1e-3):
    np.testing.assert_array_equal(found.labels, wanted.labels)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-5)
    np.testing.assert_allclose(found.boxes, wanted.boxes, atol=atol)


def test_the_public_names():
    assert retinanet_jax.Detector is Detector and "Detector" in dir(retinanet_jax)
    with pytest.raises(AttributeError, match="no attribute 'Detecter'"):
        retinanet_jax.Detecter  # noqa: B018


def test_an_image_is_the_same_however_it_is_given(detector, tmp_path):
    image = make_image(0)
    Image.fromarray(image).save(tmp_path / "a.png")
    wanted = detector(image)
    assert 5 < len(wanted) <= 100 and wanted.size == WIDE
    assert (np.diff(wanted.scores) <= 0).all()
    for given in (str(tmp_path / "a.png"), tmp_path / "a.png", Image.fromarray(image)):
        assert_same(detector(given), wanted, atol=0)
    alpha = np.dstack([image, np.full(WIDE, 9, np.uint8)])
    assert_same(detector(alpha), wanted, atol=0)
    several = detector([image, make_image(1, TALL), Image.fromarray(image)])
    assert [found.size for found in several] == [WIDE, TALL, WIDE]
    assert_same(several[0], wanted)
    assert_same(several[2], wanted)
    assert_same(detector(np.stack([image] * 2))[1], wanted)
    assert detector([]) == [] and len(detector([image])) == 1


def test_grey_is_three_equal_channels():
    grey = make_image(0)[:, :, 0]
    for given in (grey, grey[:, :, None], Image.fromarray(grey)):
        np.testing.assert_array_equal(read_image(given), np.dstack([grey] * 3))
    deep = Image.fromarray(grey.astype(np.uint16) * 256 + 255)
    np.testing.assert_array_equal(read_image(deep), np.dstack([grey] * 3))


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (
            np.zeros((3, 64, 64), np.uint8),
            r"\(3, 64, 64\); pass uint8 .* \(height, width, 3\)",
        ),
        (np.zeros((64, 64, 3), np.float32), "is float32 of shape"),
        (np.zeros((0, 64, 3), np.uint8), "of shape"),
        (Image.fromarray(np.zeros((8, 8), np.float32)), "32 bits"),
        ("nowhere.jpg", "nowhere.jpg: does not exist; name an existing image"),
        (Path(__file__).parent, "tests: is a folder; pass it to Detector.stream"),
        ("http://host/a.jpg", "http://host/a.jpg: is a URL; pass it to Detector.stream"),
        ("/dev/null", "/dev/null: is a pipe or a device; save the image as a file"),
        ("a\0.jpg", "does not exist"),
        (Path(__file__), "test_inference_detector.py: .*cannot be decoded"),
    ],
)
def test_invalid_images_raise(detector, image, says):
    with pytest.raises(DataError, match=says):
        detector(image)


def test_a_video_is_not_an_image(detector, tmp_path):
    clip, link = tmp_path / "clip.mp4", tmp_path / "link.jpg"
    with VideoWriter(clip, 10) as writer:
        writer.write(make_image(0))
    link.symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match=r"clip\.mp4: is a video; pass it to Detector\.stream"):
        detector(clip)
    with pytest.raises(DataError, match=r"link\.jpg: is a link to a file that does not exist"):
        detector(link)
    Image.fromarray(make_image(0)).save(tmp_path / "image.png")
    (tmp_path / "image.png").rename(clip)  # what a file is, its content says
    assert_same(detector(clip), detector(make_image(0)))


def test_misuse_raises_with_the_fix():
    """In a process without the type checks of the tests, which would raise first."""
    script = Path(__file__).with_name("misused_detector.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "DataError: image: is of type NoneType; pass a path, a Pillow image, an array, or a list "
        "of these",
        "DataError: image: is of type int; pass a path, a Pillow image, an array, or a list of "
        "these",
        "DataError: image: is of type bytes; pass a path, a Pillow image, an array, or a list of "
        "these; PIL.Image.open reads open files and io.BytesIO(bytes)",
        "DataError: image: is of type BytesIO; pass a path, a Pillow image, an array, or a list of "
        "these; PIL.Image.open reads open files and io.BytesIO(bytes)",
        "DataError: image: is of type NoneType; pass a path, a Pillow image, an array, or a list "
        "of these",
        "one image is a stream of one",
        "ConfigError: threshold: '0.5' is not a number; write e.g. 0.5",
        "ConfigError: max_detections: 1.5 is not an integer",
        "ConfigError: classes: 3 is not a list of class names",
        "ConfigError: classes: no class 0; the classes are ant, bee, cat, dog, elk",
        "ConfigError: scales: 1.5 is not a list of positive numbers; write (1.0, 1.5)",
        "TypeError: Detector: got NoneType for Mapping; for a workdir, a file or a URL use "
        "Detector.from_checkpoint(location)",
        "TypeError: Detector: got NoneType for Config; for a workdir, a file or a URL use "
        "Detector.from_checkpoint(location)",
        "ConfigError: batch_size: 1.5 is not an integer of at least 1",
        "WeightsError: None is not the location of a network; pass a workdir, a file, an https:// "
        "URL or hf://owner/name/file",
    ]


def test_threshold_classes_and_number_select_among_all_detections(detector):
    image = make_image(0)
    everything = detector(image)
    score = float(everything.scores[4])
    assert_same(detector(image, threshold=score), everything[everything.scores > score])
    assert_same(detector(image, max_detections=3), everything[:3])
    name = everything.names[0]
    only = detector(image, classes=[name])
    assert set(only.names) == {name} and len(only) == everything.names.count(name)
    assert_same(detector(image, classes=name), only)
    assert_same(detector(image, classes=iter([name])), only)
    for wrong, says in (
        ({"threshold": 0.001}, r"with_postprocess\(score_threshold=0.001\)"),
        ({"threshold": 1.5}, "threshold: 1.5 is not between 0 and 1"),
        ({"max_detections": 101}, r"with_postprocess\(max_detections=101\)"),
        ({"max_detections": 0}, "max_detections: 0 must be at least 1"),
        ({"classes": ["cta"]}, "no class 'cta'; did you mean cat?"),
        ({"scales": (0,)}, "not a list of positive"),
    ):
        for call in (detector, detector.stream):
            with pytest.raises(ConfigError, match=says):
                call([image], **wrong)


def test_with_postprocess_extends_the_limits(detector):
    more = detector.with_postprocess(max_detections=130, score_threshold=0.0)
    found = more(make_image(0), max_detections=120)
    assert len(found) == 120 and more.batch_size == detector.batch_size
    for wrong, says in (
        ({"nms_ou": 0.5}, r"with_postprocess: nms_ou: did you mean nms_iou\?"),
        ({"nms_threshold": 0.5}, r"nms_threshold: did you mean nms_iou\?"),
        ({"nms": "typo"}, r"with_postprocess: postprocess\.nms: 'typo' is not one of class_wise"),
        ({"score_threshold": "a"}, "with_postprocess: "),
    ):
        with pytest.raises(ConfigError, match=says):
            detector.with_postprocess(**wrong)


def test_results_are_selected_by_the_same_rules(detector):
    found = detector(make_image(0))
    for wrong in ({"max_detections": -1}, {"threshold": float("nan")}, {"threshold": 2}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            found.select(**wrong)


def test_a_path_and_an_unknown_canvas_are_errors_that_name_the_fix(detector):
    with pytest.raises(TypeError, match=r"use Detector\.from_checkpoint\(location\)"):
        Detector("runs/mine")
    parts = detector.variables, detector.config, detector.categories
    with pytest.raises(ConfigError, match="canvas: 'huge' is not one of"):
        Detector(*parts, canvas="huge")


def test_one_compilation_per_canvas_alone_and_one_in_batches(detector, monkeypatch):
    shapes, predict_fn = set(), detector.predict_fn

    def recording(variables, batch):
        shapes.add(batch.images.shape[:3])
        return predict_fn(variables, batch)

    monkeypatch.setattr(detector, "predict_fn", recording)
    detector.warm_up()
    assert shapes == {(rows, *size) for rows in (1, 3) for size in (WIDE, TALL)}
    before, compiled = len(shapes), predict_fn.compiled._cache_size()
    for count in (1, 2, 5):
        detector([make_image(i, (TALL, WIDE, (50, 60))[i % 3]) for i in range(count)])
        detector(make_image(count, (33, 190)), threshold=0.5, classes=["bee"], max_detections=2)
        list(detector.stream([make_image(i) for i in range(count)]))
    assert len(shapes) == before and predict_fn.compiled._cache_size() == compiled


def test_a_stream_is_in_order_and_agrees_with_single_calls(detector):
    images = [make_image(i, TALL if i in (1, 5, 6) else WIDE) for i in range(11)]
    streamed = list(detector.stream(iter(images)))
    for image, (given, found) in zip(images, streamed, strict=True):
        assert given is image
        # A batch of another size may take another convolution: equal within rounding.
        assert_same(found, detector(image))


def test_a_stream_holds_a_window_of_its_images(detector):
    """Also where a single image of its canvas waits for others."""
    taken, lock, most = 0, threading.Lock(), 0

    def images():
        nonlocal taken
        for i in range(200):
            with lock:
                taken += 1
            yield make_image(i, TALL if i == 20 else WIDE)

    for count, _ in enumerate(detector.stream(images(), max_detections=1)):
        with lock:
            most = max(most, taken - count)
    threads = detector.config.pipeline.num_threads or 2
    window = 2 * max(threads, 3) + (PATIENCE + QUEUED + 1) * 3
    assert taken == 200 and most <= window + 2


def threads_end(before, patience_s=30):
    """Whether the number of threads comes back to `before`."""
    deadline = time.monotonic() + patience_s
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    return threading.active_count() <= before


def test_a_closed_stream_ends_its_threads(detector):
    before = threading.active_count()
    stream = detector.stream(make_image(i) for i in range(10**9))
    next(stream)
    stream.close()
    assert threads_end(before)


@pytest.mark.parametrize("tile", [None, 64])
def test_failed_calls_leave_no_threads_and_no_garbage(detector, tile):
    """A stream that waited for the garbage collector was closed while a thread held a lock."""
    before, images = threading.active_count(), ["/missing.png", *map(make_image, range(5))]
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            with pytest.raises(DataError, match=r"missing\.png") as caught:
                detector(images, tile=tile)
            assert threads_end(before)  # also while the error, and with it its frames, is kept
            with pytest.raises(DataError, match=r"missing\.png") as caught:
                list(detector.stream(images, tile=tile))
            assert threads_end(before)
        del caught
        assert not any(isinstance(o, ImageDetections | Stream) for o in gc.get_objects())
    finally:
        gc.enable()


def test_unreadable_files_are_reported_or_raised_in_order(detector, tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for path in paths:
        Image.fromarray(make_image(0)).save(path)
    paths[2].write_bytes(paths[2].read_bytes()[:50])
    failed = []
    found = [path for path, _ in detector.stream(paths, on_error=lambda *one: failed.append(one))]
    assert found == [path for path in paths if path != paths[2]]
    ((path, error),) = failed
    assert path == paths[2] and "2.png" in str(error)
    stream = detector.stream(paths)
    assert [next(stream)[0], next(stream)[0]] == paths[:2]
    with pytest.raises(DataError, match=r"2\.png"):
        next(stream)


def test_folders_and_videos_are_streams(detector, tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/x.png", "a.jpg"):
        Image.fromarray(make_image(1)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    assert [p.name for p, _ in detector.stream(tmp_path)] == ["a.jpg", "x.png"]
    with VideoWriter(tmp_path / "clip.mp4", 10) as writer:
        for i in range(5):
            writer.write(make_image(i))
    frames = list(detector.stream(tmp_path / "clip.mp4"))
    assert [number for number, _ in frames] == [0, 1, 2, 3, 4]
    assert frames[4][1].size == WIDE
    drawn = np.asarray(frames[4][1].plot(long_side=96))
    # Each result has its own frame.
    assert np.abs(frames[0][1].image.astype(int) - frames[4][1].image).mean() > 10
    assert drawn.shape == (*WIDE, 3)
    with pytest.raises(DataError, match=r"none\.mp4: does not exist"):
        detector.stream(tmp_path / "none.mp4")


def test_mirrored_views_of_a_mirrored_image_are_mirrored_detections(detector):
    for image in (make_image(0), make_image(3, TALL)):
        found = detector(image, flip=True)
        mirrored = detector(np.ascontiguousarray(image[:, ::-1]), flip=True)
        assert len(found) > 5
        width = image.shape[1]
        boxes = mirrored.boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [width, 0, width, 0]
        assert_same(found, dataclasses.replace(mirrored, boxes=boxes.astype(np.float32)))
        # The network is not symmetric, so that the merged detections differ from one view's.
        assert not np.array_equal(found.scores, detector(image).scores)


def test_several_views_are_merged_by_nms(detector):
    """Compared with the definition of class-wise NMS, box by box."""
    image = make_image(4)
    parts = [detector(image, scales=(scale,)) for scale in (1.0, 0.5)]
    boxes, scores, labels = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("boxes", "scores", "labels")
    )
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        if all(labels[i] != labels[j] or iou(boxes[i], boxes[j]) <= 0.5 for j in kept):
            kept.append(i)
    found = detector(image, scales=(1.0, 0.5))
    np.testing.assert_allclose(found.scores, scores[kept[:100]], atol=1e-6)
    np.testing.assert_allclose(found.boxes, boxes[kept[:100]], atol=1e-3)


def iou(a, b) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = np.prod(np.maximum(sides, 0))
    return common / max(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common, 1e-9)


def test_one_view_alone_is_the_plain_call(detector):
    image = make_image(2)
    assert_same(detector(image, flip=False, scales=(1.0,)), detector(image), atol=0)
    # Merging the detections of one view changes nothing.
    rows = next(iter(detector._see([(0, image)], PLAIN, 1))).found[0]
    again = merge([rows], detector.config.postprocess)
    np.testing.assert_array_equal(again.boxes[again.valid], rows.boxes[rows.valid])
    np.testing.assert_array_equal(again.labels[again.valid], rows.labels[rows.valid])
    twice = map_back(map_back(rows, View(flip=True), 96), View(flip=True), 96)
    np.testing.assert_allclose(twice.boxes, rows.boxes, atol=1e-5)


def test_images_are_turned_as_exif_says(detector, tmp_path):
    """All eight orientations, against Pillow: in files, folders and as Pillow images."""
    stored = make_image(7)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        path = tmp_path / f"{orientation}.png"
        Image.fromarray(stored).save(path, exif=exif)
        with Image.open(path) as opened:
            shown = np.asarray(ImageOps.exif_transpose(opened))
        for given in (path, Image.open(path)):
            np.testing.assert_array_equal(read_image(given), shown)
    path, found = list(detector.stream(tmp_path))[5]
    assert path.name == "6.png" and found.size == TALL
    assert_same(found, detector(cv2.rotate(stored, cv2.ROTATE_90_CLOCKWISE)))
    assert found.plot(long_side=96).size == TALL[::-1]


def test_folders_are_read_by_content_and_list_dead_links(detector, tmp_path):
    Image.fromarray(make_image(0)).save(tmp_path / "image.png")
    for name in ("photo.JFIF", "no_suffix", "odd.dat"):
        (tmp_path / name).write_bytes((tmp_path / "image.png").read_bytes())
    (tmp_path / "notes.txt").write_text("BM is not an image here")
    (tmp_path / "dead.jpg").symlink_to(tmp_path / "nowhere.jpg")
    failed = []
    found = detector.stream(tmp_path, on_error=lambda path, _: failed.append(path.name))
    assert [path.name for path, _ in found] == ["image.png", "no_suffix", "odd.dat", "photo.JFIF"]
    assert failed == ["dead.jpg"]


def write_clip(path: Path, rate: float, frames: int) -> Path:
    with VideoWriter(path, rate) as writer:
        for i in range(frames):
            writer.write(make_image(i))
    return path


def test_a_damaged_video_gives_its_frames_and_then_an_error(detector, tmp_path):
    path = write_clip(tmp_path / "clip.avi", 10, 20)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    failed = []
    numbers = [n for n, _ in detector.stream(path, on_error=lambda *one: failed.append(one))]
    assert numbers and numbers == list(range(len(numbers))) and len(numbers) < 19
    ((number, error),) = failed
    assert number == len(numbers) and f"clip.avi: ends after {number} of" in str(error)
    with pytest.raises(DataError, match="ends after"):
        list(detector.stream(path))


@pytest.mark.parametrize(("suffix", "rate"), [(".mp4", 1000), (".mp4", 29.97), (".webm", 30)])
def test_videos_keep_their_rate(tmp_path, suffix, rate):
    video = Video(write_clip(tmp_path / f"clip{suffix}", rate, 12))
    assert video.rate == pytest.approx(rate, rel=1e-3) and len(list(video)) == 12


def test_a_detector_is_pickled_and_shared_by_threads(detector):
    image, wanted = make_image(0), detector(make_image(0))
    copied = pickle.loads(pickle.dumps(detector))
    assert copied.config == detector.config and copied.batch_size == detector.batch_size
    assert_same(copied(image), wanted, atol=0)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        for found in threads.map(detector, [image] * 8):
            assert_same(found, wanted, atol=0)


def test_a_spawned_process_detects_and_a_forked_one_raises(detector):
    image = make_image(0)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert_same(pool.apply(detector, (image,)), detector(image))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python and JAX, about the fork itself
        pool = multiprocessing.get_context("fork").Pool(1)
    with pool, pytest.raises(RuntimeError, match=r"forked .* use threads"):
        pool.apply(detector, (image,))
