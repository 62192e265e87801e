"""`retinanet-jax detect`: inputs, outputs, errors."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from camera_server import camera
from data_settings import data_settings
from file_server import served
from PIL import ExifTags, Image
from pycocotools.coco import COCO
from small_detector import TALL, WIDE, small_detector

from retinanet_jax.cli import app
from retinanet_jax.cli import detect as detect_command
from retinanet_jax.cli.inputs import drawn_paths, find_inputs
from retinanet_jax.cli.outputs import CsvWriter
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.video import Video, VideoWriter
from retinanet_jax.runtime import compilation_cache as compilation


@pytest.fixture(scope="module")
def network():
    return small_detector()


@pytest.fixture
def detect(network, monkeypatch):
    """Runs the command with the small network; returns the exit code."""
    monkeypatch.setattr(detect_command, "make_detector", lambda _: network)
    monkeypatch.setattr(compilation, "keep_compilations", lambda _: None)

    def run(*arguments) -> int | str:
        try:
            app.main(["detect", *map(str, arguments), "--model=RUN"])
        except SystemExit as stopped:
            return stopped.code
        return 0

    return run


def write_image(path: Path, seed: int, size=WIDE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """Images of the same name, one of another kind, one broken, a note and a video."""
    root = tmp_path / "in"
    write_image(root / "a/x.png", 0)
    write_image(root / "b/x.png", 1, TALL)
    write_image(root / "b/y.tif", 2)
    (root / "a/broken.jpg").write_bytes(b"\xff\xd8no")
    (root / "notes.txt").write_text("no image")
    with VideoWriter(root / "clip.mp4", 5) as writer:
        for seed in range(4):
            writer.write(np.random.default_rng(seed).integers(0, 256, (*WIDE, 3), np.uint8))
    return root


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_outputs_are_written_and_inputs_stay(detect, network, folder, tmp_path, capsys):
    before, out = contents(folder), tmp_path / "out"
    assert detect(folder, f"--out={out}", "--threshold=0.1", "--max=20") == 3
    said = capsys.readouterr()
    assert "1 of the inputs could not be read" in said.err and "broken.jpg: its 4" in said.err
    assert "3 images, 4 frames: " in said.out and "notes.txt" in said.out
    assert contents(folder) == before

    drawn = {str(path.relative_to(out / "images")) for path in contents(out / "images")}
    assert drawn == {"a/x.png", "b/x.png", "b/y.tif.png", "clip.mp4"}
    assert np.asarray(Image.open(out / "images/b/x.png")).shape == (480, 320, 3)
    clip = cv2.VideoCapture(str(out / "images/clip.mp4"))
    assert clip.get(cv2.CAP_PROP_FRAME_COUNT) == 4 and clip.get(cv2.CAP_PROP_FPS) == 5
    assert clip.read()[1].shape == (*WIDE, 3)

    wanted = network(folder / "b/x.png", threshold=0.1, max_detections=20)
    assert 0 < len(wanted) <= 20
    with (out / "detections.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["file"] == str(folder / "b/x.png")]
    assert [row["class"] for row in rows] == list(wanted.names)
    np.testing.assert_allclose([float(row["score"]) for row in rows], wanted.scores, atol=1e-4)
    corners = [[float(row[name]) for name in ("x1", "y1", "x2", "y2")] for row in rows]
    np.testing.assert_allclose(corners, wanted.boxes, atol=0.006)
    assert {row["frame"] for row in rows} == {""}

    coco = COCO(out / "detections.coco.json")
    (image,) = (one for one in coco.imgs.values() if one["file_name"] == str(folder / "b/x.png"))
    assert (image["height"], image["width"]) == TALL
    entries = coco.imgToAnns[image["id"]]
    results = wanted.to_coco(image["id"])
    assert [{name: entry[name] for name in results[0]} for entry in entries] == results
    assert [one.get("frame") for one in coco.imgs.values()] == [None] * 3 + [0, 1, 2, 3]
    assert set(coco.cats) == set(network.categories.ids)


def test_only_the_chosen_formats_and_classes_are_written(detect, folder, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = (folder / "a/x.png", f"--out={out}", "--threshold=0", "--classes=ant,elk")
    assert detect(*arguments, "--format=csv", "--flip") == 0
    assert [path.name for path in contents(out)] == ["detections.csv"]
    with (out / "detections.csv").open() as file:
        assert {row["class"] for row in csv.DictReader(file)} <= {"ant", "elk"}
    assert detect(folder / "a/x.png", f"--out={out}", "--threshold=1", "--format=csv") == 0
    assert "0 objects; lower --threshold to see less certain ones" in capsys.readouterr().out


def labelled_inputs(root: Path) -> dict[str, Path]:
    """Files of one name in two folders and formats, a turned one, a video; by expected name."""
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    (root / "b").mkdir(parents=True)
    pixels = np.random.default_rng(5).integers(0, 256, (*WIDE, 3), np.uint8)
    Image.fromarray(pixels).save(root / "b/turned.jpg", exif=turned, quality=95)
    with VideoWriter(root / "clip.avi", 5) as writer:
        writer.write(pixels)
    return {
        "a_x.png": write_image(root / "a/x.png", 0),
        "a_x_2.bmp": write_image(root / "a_x.bmp", 1, TALL),
        "b_y.png": write_image(root / "b/y.tif", 2),
        "b_turned.jpg": root / "b/turned.jpg",
        "clip_000000.jpg": root / "clip.avi",
    }


def test_datasets_of_detections_are_read_back(detect, network, tmp_path):
    files, out = labelled_inputs(tmp_path / "in"), tmp_path / "out"
    arguments = tmp_path / "in", f"--out={out}", "--threshold=0.1", "--format=yolo,voc"
    assert detect(*arguments) == 0
    image_folders = {"yolo": out / "yolo/images/train", "voc": out / "voc/JPEGImages"}
    for layout, folder in image_folders.items():
        assert set(files) == {path.name for path in folder.iterdir()}
        assert (folder / "a_x.png").read_bytes() == files["a_x.png"].read_bytes()
        settings = data_settings("folder", out / layout, tmp_path / "cache", val_share=0.0)
        dataset = load_dataset(settings, "train")
        assert dataset.categories.names == network.categories.names
        assert len(dataset.source) == len(files)
        truth = {
            Path(image["file_name"]).name: image["id"] for image in dataset.ground_truth()["images"]
        }
        examples = {
            example.image_id: example for example in map(dataset.source.__getitem__, range(5))
        }
        for name, file in files.items():
            example = examples[truth[name]]
            if name == "clip_000000.jpg":
                ((_, wanted),) = network.stream(file, threshold=0.1)
            else:
                wanted = network(file, threshold=0.1)
            assert example.image.shape[:2] == wanted.size and len(wanted) > 5
            np.testing.assert_allclose(example.boxes, wanted.boxes, atol=1e-4)
            np.testing.assert_array_equal(example.labels, wanted.labels)
    upright = Image.open(image_folders["yolo"] / "b_turned.jpg")
    assert upright.size == TALL[::-1] and not upright.getexif()

    message = detect(*arguments)
    assert "yolo: exists and would be overwritten; delete it" in message
    assert detect(tmp_path, f"--out={out}", "--format=csv") == 0  # no results among the inputs
    with (out / "detections.csv").open() as file:
        assert {Path(row["file"]) for row in csv.DictReader(file)} == set(files.values())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.jpg"], "nowhere.jpg: does not exist"),
        (["IN/*.xyz"], "does not exist"),
        (["IN/a/x.png", "--classes=bat"], "no class 'bat'; did you mean cat?"),
        (["IN/a/x.png", "--threshold=2"], "threshold: 2.0 is not between"),
        (["IN/a/x.png", "--max=0"], "max_detections: 0 must be at least 1"),
        (["IN/a/x.png", "--out=IN/notes.txt"], "notes.txt"),
        (["EMPTY"], "none of 0 files is an image"),
    ],
)
def test_mistakes_are_reported_in_a_line(detect, folder, tmp_path, arguments, says):
    (tmp_path / "empty").mkdir()
    names = {"IN": str(folder), "EMPTY": str(tmp_path / "empty")}
    given = [f"--out={tmp_path / 'out'}", *arguments]
    for name, path in names.items():
        given = [argument.replace(name, path) for argument in given]
    message = detect(*given)
    assert isinstance(message, str) and says in message and "\n" not in message


def test_scales_are_numbers(detect, tmp_path, capsys):
    assert detect("a.png", f"--out={tmp_path}", "--scales=1,abc") == 2
    assert "--scales: '1,abc' is not a list of numbers such as 1,1.5" in capsys.readouterr().err


def test_cameras_are_drawn_and_recorded(detect, network, tmp_path, capsys):
    out = tmp_path / "out"
    with camera() as address:
        missing = address.replace("video", "none")
        arguments = address, missing, f"--out={out}", "--threshold=0.1", "--frames=7"
        assert detect(*arguments, "--format=images,csv,yolo") == 3
        printed = capsys.readouterr()
        assert "7 frames: " in printed.out and f"{missing}: cannot be opened" in printed.err
        stream = network.stream(address, threshold=0.1)
        assert [next(stream)[0] for _ in range(3)] == [0, 1, 2]
        stream.close()
    (drawn,) = (out / "images").iterdir()
    assert drawn.name.startswith("http_127_0_0_1_") and len(list(Video(drawn))) == 7
    with (out / "detections.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["file"] for row in rows} == {address}
    assert {row["frame"] for row in rows} <= set(map(str, range(7)))
    assert len(list((out / "yolo/images/train").iterdir())) == 7


@pytest.mark.parametrize("drawn", [True, False])
def test_a_photo_at_a_url_is_an_image(detect, network, tmp_path, drawn):
    """Rotated by its EXIF orientation, like the file."""
    out, photo = tmp_path / "out", tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.open(write_image(tmp_path / "a.png", 0)).save(photo, exif=exif, quality=95)
    with served(tmp_path) as address:
        given = f"{address}/photo.jpg", f"--out={out}", "--threshold=0.1"
        formats = "images,coco,yolo,voc" if drawn else "coco"
        assert detect(*given, f"--format={formats}") == 0
        ((key, found),) = network.stream(f"{address}/photo.jpg", threshold=0.1)
    assert key == f"{address}/photo.jpg" and found.size == TALL
    content = json.loads((out / "detections.coco.json").read_text())
    (image,), boxes = content["images"], [x["bbox"] for x in content["annotations"]]
    assert image == {"id": 1, "file_name": key, "height": TALL[0], "width": TALL[1]}
    of_file = [entry["bbox"] for entry in network(photo, threshold=0.1).to_coco(1)]
    assert len(boxes) > 5 and boxes == of_file
    if drawn:
        (copy,) = (out / "images").iterdir()
        assert copy.name.startswith("http_127_0_0_1_") and copy.name.endswith("_photo_jpg.jpg")
        for folder in ("yolo/images/train", "voc/JPEGImages"):
            (copy,) = (out / folder).iterdir()
            assert Image.open(copy).size == TALL[::-1] and copy.suffix == ".jpg"


def test_ctrl_c_ends_a_camera_and_keeps_what_was_found(detect, tmp_path, capsys, monkeypatch):
    out, add = tmp_path / "out", CsvWriter.add

    def interrupted(self, file, found, frame=None):
        add(self, file, found, frame)
        if frame == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(CsvWriter, "add", interrupted)
    with camera() as address:
        assert detect(address, f"--out={out}", "--threshold=0.1", "--format=images,csv") == 0
    assert "4 frames: " in capsys.readouterr().out
    (drawn,) = (out / "images").iterdir()
    assert len(list(Video(drawn))) == 5


def test_unreadable_videos_are_listed(detect, tmp_path, capsys):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    write_image(tmp_path / "good.png", 0)
    assert detect(tmp_path, f"--out={tmp_path / 'out'}") == 3
    said = capsys.readouterr()
    assert "bad.mp4: cannot be opened" in said.err and "1 image: " in said.out


def test_inputs_are_found_once(tmp_path):
    x, y = write_image(tmp_path / "p/x.png", 0), write_image(tmp_path / "p/q/y.JPG", 1)
    (tmp_path / "p/.hidden.png").write_bytes(x.read_bytes())
    odd = tmp_path / "p/odd.dat"
    odd.write_text("not an image")
    out = tmp_path / "p/found/images"
    write_image(out / "x.png", 0)
    everything = find_inputs([str(x), str(tmp_path / "p"), f"{tmp_path}/p/**/*.JPG"], out)
    assert everything.images == [x, y] and everything.left_out == [odd]
    assert find_inputs([str(odd)], out).images == [odd]  # its error is reported by its name
    assert find_inputs([f"{tmp_path}/p/*.png"], out).images == [x]


def test_drawn_images_have_distinct_paths_and_overwrite_no_input(tmp_path):
    names = ("a/x.jpg", "b/x.jpg", "b/x.tif", "b/x.tif.png", "b/v.avi", "b/v.avi.mp4")
    paths = [write_image(tmp_path / name, 0) if "v" not in name else tmp_path / name
             for name in names]  # fmt: skip
    paths[4].write_bytes(b"")
    paths[5].write_bytes(b"")
    inputs = find_inputs([str(path) for path in paths], tmp_path / "none")
    targets = drawn_paths(inputs, tmp_path / "out")
    drawn = [str(target.relative_to(tmp_path / "out")) for target in targets.values()]
    assert len(set(drawn)) == 6 and drawn[:3] == ["a/x.jpg", "b/x.jpg", "b/x.tif.png"]
    assert drawn[3] == "b/x.tif_2.png"
    with pytest.raises(DataError, match=r"x\.jpg: is an input and would be overwritten"):
        drawn_paths(inputs, tmp_path)


def test_case_images_are_done_and_the_rest_is_listed(detect, shared_dir, tmp_path, capsys):
    folder = shared_dir / "cases/images"
    assert detect(folder, f"--out={tmp_path}") == 3
    printed = capsys.readouterr()
    for name in ("empty.jpg", "float.tiff", "half.jpg", "text.jpg"):
        assert f"{name}: " in printed.err
    assert "4 of the inputs could not be read" in printed.err
    drawn = {path.name for path in contents(tmp_path / "images")}
    assert {"PHOTO.JPG", "photo.jfif.png", "no_suffix.png", "png_named.jpg"} < drawn
    assert len(drawn) == len(contents(folder)) - 4


@pytest.mark.parametrize("place", ["IN/a/x.png", "IN/a/x.png/out", "/proc/retinanet_jax"])
def test_an_output_that_cannot_be_written_is_reported_before_the_model_is_read(
    detect, folder, monkeypatch, place
):
    monkeypatch.setattr(detect_command, "make_detector", lambda _: pytest.fail("was read"))
    message = detect(folder, f"--out={place.replace('IN', str(folder))}")
    assert "cannot be written" in message and "\n" not in message


def test_a_full_disk_is_reported_before_the_work(detect, folder, small_disk):
    (small_disk / "rest").write_bytes(bytes(2_500_000))
    message = detect(folder, f"--out={small_disk / 'out'}")
    assert "No space left" in message and "free some space" in message and "\n" not in message
    assert not (small_disk / "out").exists()


@pytest.mark.parametrize(
    ("formats", "size", "count"), [("images", (240, 320), 120), ("coco,csv", WIDE, 100)]
)
def test_a_disk_that_fills_up_leaves_whole_files_only(
    detect, tmp_path, small_disk, formats, size, count
):
    """A video is not whole without its end, nor is COCO's JSON."""
    (small_disk / "rest").write_bytes(bytes(2_050_000))
    with VideoWriter(tmp_path / "clip.mp4", 25) as writer:
        for seed in range(count):
            writer.write(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))
    most = 3 if formats == "images" else 100
    arguments = f"--out={small_disk / 'out'}", "--threshold=0", f"--max={most}"
    message = detect(tmp_path / "clip.mp4", *arguments, f"--format={formats}")
    assert "cannot be written" in message and "space" in message and "\n" not in message
    for path, content in contents(small_disk / "out").items():
        assert content and path.suffix != ".mp4"
        if path.suffix == ".json":
            json.loads(content)


def test_images_that_a_full_disk_cuts_off_are_deleted(detect, tmp_path, small_disk):
    (small_disk / "rest").write_bytes(bytes(2_050_000))
    for seed in range(12):
        write_image(tmp_path / f"in/{seed:02}.png", seed)
    message = detect(tmp_path / "in", f"--out={small_disk / 'out'}", "--max=3", "--format=images")
    assert "cannot be written" in message and "space" in message and "\n" not in message
    for path in contents(small_disk / "out"):
        Image.open(path).load()
