"""CreateML's JSON: boxes by their centers, names of fields, errors that name the object."""

import json

import pytest
from layout_writers import SMALL, Annotated, Box, createml_coordinates, write_createml, write_image
from raw_reading import boxes, expected, read

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats import createml

BOX = Box("cat", 4, 6, 20, 12)


@pytest.fixture
def folder(tmp_path):
    """A function that writes a.png and the JSON of some images."""

    def write(*images):
        write_image(tmp_path, Annotated("a.png", 64, 48))
        (tmp_path / "annotations.json").write_text(json.dumps(images), encoding="utf-8")
        return tmp_path

    return write


def found(label="cat", **fields):
    return {"label": label, "coordinates": createml_coordinates(BOX) | fields}


def test_split_folders_are_read(tmp_path):
    write_createml(tmp_path, SMALL)
    layout = createml.find(tmp_path)
    assert layout.tool == "CreateML JSON" and set(layout.splits) == {"train", "val"}
    for split in SMALL:
        content = read(createml.find, tmp_path, split)
        assert boxes(content) == expected(SMALL, split)
        assert all(image.path.is_file() for image in content.images)


def test_one_file_in_annotations_is_read_with_the_images_around_it(tmp_path):
    write_image(tmp_path / "images", Annotated("a.png", 64, 48))
    path = tmp_path / "annotations" / "train.json"
    path.parent.mkdir()
    path.write_text(json.dumps([{"image": "a.png", "annotations": [found()]}]), encoding="utf-8")
    assert [image.path for image in read(createml.find, path).images] == [tmp_path / "images/a.png"]


def test_the_names_that_apple_documents_are_read(folder):
    root = folder({"imagefilename": "a.png", "annotation": [found()]})
    assert boxes(read(createml.find, root)) == {"a.png": [tuple(BOX)]}


@pytest.mark.parametrize("count", [3, 25])
def test_one_file_for_each_image_as_labelimg_writes_them(tmp_path, count):
    for number in range(count):
        name = f"test {number}" if count == 25 else str(number)
        write_image(tmp_path, Annotated(f"{name}.png", 64, 48))
        content = [{"image": f"{name}.png", "verified": False, "annotations": [found()]}]
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    assert createml.find(tmp_path).splits == ("train",)
    content = read(createml.find, tmp_path)
    assert len(content.images) == count and all(len(image.objects) == 1 for image in content.images)
    (tmp_path / f"{name}.json").write_text('[{"image": "x.png", "annotations": []', "utf-8")
    with pytest.raises(DataError, match=rf"{name}\.json: is not JSON"):
        read(createml.find, tmp_path)
    assert len(read(createml.find, tmp_path, on_error="skip").images) == count - 1


def test_two_files_about_one_image_are_ambiguous(folder):
    root = folder({"image": "a.png", "annotations": [found()]})
    other = [{"image": "b.png", "annotations": []}, {"image": "a.png", "annotations": []}]
    (root / "other.json").write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(DataError, match=r"both annotations\.json and other\.json annotate 'train'"):
        createml.find(root)


@pytest.mark.parametrize("first", [{"id": 1}, {"attributes": {"hidden": False}}])
def test_objects_may_begin_with_any_field(folder, first):
    root = folder({"image": "a.png", "annotations": [first | found()]})
    assert boxes(read(createml.find, root)) == {"a.png": [tuple(BOX)]}


@pytest.mark.parametrize(
    "bad, message",
    [
        (found(label=7), "object 1: the class is 7"),
        (found(x="left"), "object 1: coordinates: is"),
        ({"label": "cat"}, "write numbers for x, y, width, height"),
        ("text", "object 1: coordinates: is None"),
    ],
)
def test_a_bad_object_is_an_error_that_names_it(folder, bad, message):
    root = folder({"image": "a.png", "annotations": [found(), bad]})
    with pytest.raises(DataError) as error:
        read(createml.find, root)
    assert message in str(error.value) and "image 'a.png'" in str(error.value)
    assert len(read(createml.find, root, on_error="skip").images[0].objects) == 1


@pytest.mark.parametrize("bad", ["text", {"image": 3}, {}, {"image": "a.png", "annotations": 3}])
def test_a_bad_image_is_an_error(folder, bad):
    root = folder({"image": "a.png", "annotations": []}, bad)
    with pytest.raises(DataError, match=r"annotations\.json: image"):
        read(createml.find, root)
    assert len(read(createml.find, root, on_error="skip").images) == 1
