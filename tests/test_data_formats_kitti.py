"""KITTI's labels: lines of text files, ignored regions, errors that name the line."""

from collections import Counter

import pytest
from data_settings import data_settings
from layout_writers import SMALL, Annotated, datumaro_export, write_image, write_kitti
from raw_reading import boxes, expected, read

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.formats import kitti, yolo

# From the description of the format: a car, and a region without labels.
CAR = "Car 0.00 0 -1.57 4.50 6.25 24.50 18.25 1.57 1.73 4.15 1.00 1.75 13.22 1.62\n"
DONT_CARE = "DontCare -1 -1 -10 30.00 5.00 40.50 20.00 -1 -1 -1 -1000 -1000 -1000 -10\n"


@pytest.fixture
def folder(tmp_path):
    """A function that writes training/label_2/a.txt for training/image_2/a.png."""

    def write(text: str):
        write_image(tmp_path / "training" / "image_2", Annotated("a.png", 64, 48))
        write_image(tmp_path / "testing" / "image_2", Annotated("b.png", 64, 48))
        path = tmp_path / "training" / "label_2" / "a.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return tmp_path

    return write


def test_the_folders_of_kitti_are_read(tmp_path):
    write_kitti(tmp_path, SMALL)
    layout = kitti.find(tmp_path)
    assert layout.tool == "KITTI labels" and set(layout.splits) == {"train", "val"}
    assert yolo.find(tmp_path) is None
    for split in SMALL:
        content = read(kitti.find, tmp_path, split)
        assert boxes(content) == expected(SMALL, split)
        assert all(image.path.is_file() for image in content.images)


def test_an_ignored_region_is_one_of_each_class_and_counted_once(folder, tmp_path):
    outside = DONT_CARE.replace("40.50", "90.50")  # of an image of 64 pixels
    root = folder(DONT_CARE + CAR + CAR.replace("Car", "Van") + outside)
    assert kitti.find(root).splits == ("training",)
    settings = data_settings("folder", root, tmp_path / "cache", val_share=0)
    dataset = load_dataset(settings, "train")
    assert "2 boxes: Car 1, Van 1; 2 ignored" in dataset.found
    assert dataset.report.counts == {"box partly outside, clipped": 1}
    objects = dataset.ground_truth()["annotations"]
    assert [(o["category_id"], o["bbox"], o["iscrowd"]) for o in objects] == [
        (1, [30, 5, 10.5, 15], 1),
        (2, [30, 5, 10.5, 15], 1),
        (1, [4.5, 6.25, 20, 12], 0),
        (2, [4.5, 6.25, 20, 12], 0),
        (1, [30, 5, 60.5, 15], 1),
        (2, [30, 5, 60.5, 15], 1),
    ]


def test_a_class_may_have_several_words_and_a_line_a_confidence(folder):
    root = folder(CAR.replace("Car", "traffic light") + CAR.replace("1.62", "1.62 0.9"))
    assert boxes(read(kitti.find, root, "training"))["a.png"] == [
        ("traffic light", 4.5, 6.25, 20, 12),
        ("Car", 4.5, 6.25, 20, 12),
    ]


@pytest.mark.parametrize(
    "bad, message",
    [
        ("Car 0.00 0 -1.57 4.50 6.25 24.50\n", "line 2: is 'Car 0.00 0 -1.57 4.50"),
        (CAR.replace(" 1.62", ""), "line 2: is 'Car"),
        (CAR.replace("Car 0.00", "Car 0.00 x"), "line 2: is 'Car"),
        (CAR.replace("24.50", "x"), "line 2: is 'Car"),
        (CAR.replace("24.50", "inf"), "line 2: is 'Car"),
    ],
)
def test_a_bad_line_is_an_error_that_names_it(folder, bad, message):
    root = folder(CAR + bad)
    with pytest.raises(DataError) as error:
        read(kitti.find, root, "training")
    assert message in str(error.value) and "a.txt" in str(error.value)
    assert len(read(kitti.find, root, "training", on_error="skip").images[0].objects) == 1


def test_many_images_without_objects_may_be_the_first(tmp_path):
    images = [Annotated(f"a{number:02}.png", 64, 48) for number in range(30)]
    write_kitti(tmp_path, {"train": [*images, SMALL["train"][0]._replace(file_name="b.png")]})
    assert len(read(kitti.find, tmp_path).images) == 31


def test_labels_in_yolo_format_are_not_kitti(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    assert kitti.find(tmp_path) is None


def test_files_written_by_datumaro_read_back_equal(tmp_path):
    datumaro_export(tmp_path, SMALL["train"], "kitti_detection")
    content = read(kitti.find, tmp_path / "out")
    wanted = {name: found for name, found in expected(SMALL).items() if found}
    read_back = {name: found for name, found in boxes(content).items() if found}
    assert {n: Counter(f) for n, f in read_back.items()} == {
        n: Counter(f) for n, f in wanted.items()
    }
