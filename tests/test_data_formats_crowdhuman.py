"""CrowdHuman: full boxes, masks and ignored persons, boxes beyond the image, broken lines."""

import json

import pytest
from data_settings import data_settings
from layout_writers import SMALL, Annotated, write_coco, write_crowdhuman, write_image
from raw_reading import boxes, expected, read

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.formats import crowdhuman
from retinanet_jax.data.formats.find_layout import FINDERS, find_layout

ID = "273271,c9db000d5146c15"


def person(fbox=(4, 6, 20, 12), tag="person", **fields) -> dict:
    """An object as the release has it."""
    boxes = {"fbox": list(fbox), "vbox": [5, 7, 10, 8], "hbox": [5, 6, 3, 3]}
    head = {"ignore": 1, "occ": 0, "unsure": 0}
    return {**boxes, "tag": tag, "head_attr": head, "extra": {"box_id": 0, "occ": 1}} | fields


@pytest.fixture
def folder(tmp_path):
    """A function that writes annotation_train.odgt with some lines and the images in Images/."""

    def write(*lines, newline="\n"):
        write_image(tmp_path / "Images", Annotated(f"{ID}.jpg", 64, 48))
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path = tmp_path / "annotation_train.odgt"
        path.write_text("\n".join([*texts, ""]), encoding="utf-8", newline=newline)
        return tmp_path

    return write


def objects(root, **keywords):
    images = read(crowdhuman.find, root, **keywords).images
    return [(o.class_name, o.box, o.crowd) for image in images for o in image.objects]


def test_each_split_is_read(tmp_path):
    write_crowdhuman(tmp_path, SMALL)
    layout = find_layout(tmp_path).layout
    assert (layout.name, layout.tool) == ("crowdhuman", "CrowdHuman")
    assert set(layout.splits) == {"train", "val"} and layout.suffixes == (".odgt",)
    for split in SMALL:
        content = read(crowdhuman.find, tmp_path, split)
        assert content.class_names == ("person",) and not content.notes
        wanted = expected(SMALL, split)
        assert boxes(content) == {
            name: [("person", *box) for _, *box in found] for name, found in wanted.items()
        }
        assert all(image.path.is_file() for image in content.images)


def test_the_records_have_full_boxes_clipped_to_the_image(folder, tmp_path):
    beyond = person((-10, 30, 30, 40), extra={"ignore": 0})
    root = folder({"ID": ID, "gtboxes": [person(), beyond]}, newline="\r\n")
    settings = data_settings("folder", root, tmp_path / "cache", val_share=0.0)
    dataset = load_dataset(settings, "train")
    assert dataset.source[0].boxes.tolist() == [[4, 6, 24, 18], [0, 30, 20, 48]]
    assert dataset.report.counts == {"box partly outside, clipped": 1}


@pytest.mark.parametrize(
    "ignored", [person(tag="mask"), person(tag="mask", extra={}), person(extra={"ignore": 1})]
)
def test_masks_and_ignored_persons_are_ignored_regions(folder, ignored):
    root = folder({"ID": ID, "gtboxes": [person(), ignored]})
    assert [crowd for *_, crowd in objects(root)] == [False, True]


def test_images_of_the_archives_are_found(folder):
    root = folder({"ID": ID, "gtboxes": []})
    (root / "CrowdHuman_train01").mkdir()
    (root / "Images").rename(root / "CrowdHuman_train01/Images")
    (image,) = read(crowdhuman.find, root).images
    assert image.path == root / f"CrowdHuman_train01/Images/{ID}.jpg" and not image.objects


def test_a_missing_image_is_named_with_its_line(folder, tmp_path):
    root = folder({"ID": ID, "gtboxes": []}, {"ID": "1,2", "gtboxes": [person()]})
    settings = data_settings("folder", root, tmp_path / "cache", val_share=0.0)
    with pytest.raises(DataError, match=r"annotation_train\.odgt: line 2: .*Images/1,2\.jpg"):
        load_dataset(settings, "train")


def test_a_conversion_to_coco_is_preferred_and_no_other_layout_fits(folder):
    root = folder({"ID": ID, "gtboxes": [person()]})
    assert [name for name, find in FINDERS.items() if find(root) is not None] == ["crowdhuman"]
    write_coco(root, SMALL)
    assert find_layout(root).layout.name == "coco"


@pytest.mark.parametrize(
    "bad, message",
    [
        ("{", "line 2: is not JSON"),
        ("[]", "line 2: is []; write a JSON object"),
        ({"gtboxes": []}, "line 2: has no field 'ID'"),
        ({"ID": 3, "gtboxes": []}, "line 2: ID is 3"),
        ({"ID": "b"}, "line 2: has no field 'gtboxes'"),
        ({"ID": "b", "gtboxes": 3}, "line 2: gtboxes is 3; write a list of objects"),
    ],
)
def test_a_bad_line_is_an_error_that_names_it(folder, bad, message):
    root = folder({"ID": ID, "gtboxes": [person()]}, bad)
    with pytest.raises(DataError) as error:
        read(crowdhuman.find, root)
    assert message in str(error.value) and "annotation_train.odgt" in str(error.value)
    assert len(objects(root, on_error="skip")) == 1


@pytest.mark.parametrize(
    "bad, message",
    [
        (3, "line 1: gtboxes 1: is 3; write a JSON object"),
        (person(tag="car"), "gtboxes 1: the tag is 'car'; write person, or mask to ignore it"),
        (person(extra=[1]), "gtboxes 1: extra is [1]"),
        (person(extra={"ignore": 2}), "gtboxes 1: extra: ignore is 2; write 0 or 1"),
        (person(fbox=(1, 2, 3)), "gtboxes 1: fbox is [1, 2, 3]; write [x, y, width, height]"),
        (person(fbox="1234"), "gtboxes 1: fbox is ['1', '2', '3', '4']"),
        (person() | {"fbox": 7}, "gtboxes 1: fbox is 7"),
    ],
)
def test_a_bad_object_is_an_error_that_names_it(folder, bad, message):
    root = folder({"ID": ID, "gtboxes": [person(), bad]})
    with pytest.raises(DataError) as error:
        read(crowdhuman.find, root)
    assert message in str(error.value) and "annotation_train.odgt" in str(error.value)
    assert len(objects(root, on_error="skip")) == 1
