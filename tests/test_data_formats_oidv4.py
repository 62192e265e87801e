"""OIDv4_ToolKit: folders of classes, copies of an image in several of them, lines that repeat."""

import pytest
from data_settings import data_settings
from layout_writers import (
    SMALL,
    Annotated,
    Box,
    oidv4_line,
    write_coco,
    write_image,
    write_oidv4,
    write_yolo,
)
from raw_reading import boxes, expected, read, reasons

from retinanet_jax.data.annotations.folder_parts import BESIDE
from retinanet_jax.data.annotations.label_lines import LINE_REPEATED
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.formats import oidv4
from retinanet_jax.data.formats.find_layout import FINDERS, find_layout

# As the tool writes it, with the corners that the CSV of Open Images has for an image of 64 x 48:
# 0.125, 0.25, 0.5, 0.75 and 0.25, 0.125, 0.75, 0.5.
APPLE, EAR = "Apple 8.0 12.0 32.0 36.0\n", "Human ear 16.0 6.0 48.0 24.0\n"
IN_PIXELS = {"Apple": (8, 12, 24, 24), "Human ear": (16, 6, 32, 18)}


@pytest.fixture
def folder(tmp_path):
    """A function that writes OID/Dataset/train/<name>/ with a.jpg and its label file."""

    def write(name: str, text: str, *, image="a.jpg", newline="\n"):
        root = tmp_path / "OID/Dataset/train" / name
        write_image(root, Annotated(image, 64, 48))
        path = (root / "Label" / image).with_suffix(".txt")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8", newline=newline)
        return tmp_path / "OID/Dataset"

    return write


def test_each_split_is_read(tmp_path):
    write_oidv4(tmp_path / "OID/Dataset", SMALL)
    found = find_layout(tmp_path)
    assert (found.layout.name, found.layout.tool) == ("oidv4", "OIDv4_ToolKit")
    assert found.place == tmp_path / "OID/Dataset" and set(found.layout.splits) == {"train", "val"}
    for split in SMALL:
        content = read(oidv4.find, found.place, split)
        read_boxes = {name: sorted(objects) for name, objects in boxes(content).items()}
        wanted = expected(SMALL, split)
        assert read_boxes == {name: sorted(objects) for name, objects in wanted.items()}
        assert all(image.path.is_file() for image in content.images)


@pytest.mark.parametrize("name", ["test", "train"])
def test_classes_beside_the_folder_of_a_split_are_those_to_train_on_or_counted(folder, name):
    root = folder("Apple", APPLE)
    (root / "train").rename(root / name)
    folder("Human ear", EAR, image="b.jpg")
    (root / "train" / "Human ear").rename(root / "Human ear")
    layout = oidv4.find(root)
    if name == "train":
        content = read(oidv4.find, root)
        assert list(boxes(content)) == ["a.jpg"] and reasons(content) == {BESIDE: 1}
    else:
        (root / "train").rmdir()
        assert layout.splits == ("train", "test")
        content = read(oidv4.find, root)
        assert boxes(content) == {"b.jpg": [("Human ear", *IN_PIXELS["Human ear"])]}
        assert not content.notes
        assert list(boxes(read(oidv4.find, root, "test"))) == ["a.jpg"]


def test_copies_in_the_folders_of_classes_are_one_image_with_all_boxes(folder):
    folder("Human ear", EAR)
    root = folder("Apple", APPLE)
    content = read(oidv4.find, root)
    (image,) = content.images
    assert {o.class_name: o.box for o in image.objects} == IN_PIXELS
    assert reasons(content) == {oidv4.COPIES: 1} and "a.jpg" in content.notes[0][1]


def test_a_folder_of_several_classes_is_read_and_equal_boxes_once(folder):
    folder("Apple", APPLE)
    root = folder("Apple_Human ear", APPLE + EAR)
    content = read(oidv4.find, root)
    assert {o.class_name: o.box for o in content.images[0].objects} == IN_PIXELS
    assert reasons(content) == {oidv4.COPIES: 1, LINE_REPEATED: 1}


def test_lines_that_a_second_run_appends_are_read_once(folder):
    content = read(oidv4.find, folder("Apple", 2 * APPLE))
    assert [o.box for o in content.images[0].objects] == [IN_PIXELS["Apple"]]
    assert reasons(content) == {LINE_REPEATED: 1} and "a.txt: line 2" in content.notes[0][1]


def test_the_records_of_a_folder_have_all_boxes_and_copies_are_not_reported(folder, tmp_path):
    folder("Human ear", EAR, newline="\r\n")
    folder("Apple", "", image="empty.jpg")
    folder("Human ear", "", image="other.jpg")
    root = folder("Apple", APPLE, newline="\r\n")
    (root / "train/Apple/unlabelled.jpg").write_bytes((root / "train/Apple/a.jpg").read_bytes())
    (root / "train").rename(root / "validation")
    folder("Apple", APPLE, image="b.jpg")
    settings = data_settings("folder", root.parent, tmp_path / "cache", eval_split="auto")
    dataset = load_dataset(settings, "auto")
    truth = dataset.ground_truth()
    names = {c["id"]: c["name"] for c in truth["categories"]}
    found = {names[a["category_id"]]: tuple(a["bbox"]) for a in truth["annotations"]}
    assert found == IN_PIXELS and len(truth["images"]) == 3
    assert "1 image files without annotations: unlabelled.jpg" in dataset.found


def test_images_of_one_name_that_are_not_copies_are_an_error(folder):
    root = folder("Apple", APPLE)
    folder("Human ear", EAR)
    write_image(root / "train/Human ear", Annotated("a.jpg", 62, 48))
    with pytest.raises(DataError, match=r"has the name of .*a\.jpg, but is another image; rename"):
        read(oidv4.find, root)


def test_a_copy_that_was_deleted_is_not_needed(folder):
    root = folder("Apple", APPLE)
    folder("Human ear", EAR)
    (root / "train/Apple/a.jpg").unlink()
    (image,) = read(oidv4.find, root).images
    assert image.path == root / "train/Human ear/a.jpg" and len(image.objects) == 2
    image.path.unlink()
    (image,) = read(oidv4.find, root).images
    assert image.path == root / "train/Apple/a.jpg"


@pytest.mark.parametrize("place", ["..", ".", "train", "train/Apple"])
def test_the_root_may_be_a_folder_around_or_in_it(folder, place):
    root = folder("Apple", APPLE)
    found = find_layout((root / place).resolve())
    assert found.layout.splits == ("train",)
    assert read(lambda _: found.layout, root).images[0].path == root / "train/Apple/a.jpg"
    assert [n for n, find in FINDERS.items() if find(found.place) is not None] == ["oidv4"]


@pytest.mark.parametrize("write, name", [(write_coco, "coco"), (write_yolo, "yolo")])
def test_a_conversion_to_another_layout_is_preferred(folder, write, name):
    root = folder("Apple", APPLE)
    write(root, SMALL)
    assert find_layout(root).layout.name == name
    assert find_layout(root, "oidv4").place == root


@pytest.mark.parametrize(
    "bad, message",
    [
        ("Apple 1 2 3\n", "line 2: is 'Apple 1 2 3'; write a class and x1 y1 x2 y2"),
        ("1 2 3 4\n", "line 2: is '1 2 3 4'"),
        ("0 1 2 3 4\n", "line 2: is '0 1 2 3 4'"),
        ("Apple 0.9 1 2 3 4\n", "line 2: is 'Apple 0.9 1 2 3 4'"),
        ("Apple 1 2 nan 4\n", "line 2: is 'Apple 1 2 nan 4'"),
    ],
)
def test_a_bad_line_is_an_error_that_names_it(folder, bad, message):
    root = folder("Apple", APPLE + bad)
    with pytest.raises(DataError) as error:
        read(oidv4.find, root)
    assert message in str(error.value) and "Label/a.txt" in str(error.value)
    assert len(read(oidv4.find, root, on_error="skip").images[0].objects) == 1


def test_an_error_of_a_box_names_the_file_that_states_it(folder, tmp_path):
    folder("Apple", APPLE)
    root = folder("Human ear", oidv4_line(Box("Human ear", 80, 6, 9, 9)))
    settings = data_settings("folder", root, tmp_path / "cache", val_share=0.0)
    with pytest.raises(DataError, match=r"line 1 of train/Human ear/Label/a\.txt: box .80, 6, 89"):
        load_dataset(settings, "train")


def test_labels_of_yolo_in_such_a_folder_are_not_of_this_layout(folder):
    assert oidv4.find(folder("Apple", "0 0.5 0.5 0.25 0.25\n")) is None
