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


def test_the_names_that_apple_documents_are_read(folder):
    root = folder({"imagefilename": "a.png", "annotation": [found()]})
    assert boxes(read(createml.find, root)) == {"a.png": [tuple(BOX)]}


@pytest.mark.parametrize(
    "bad, message",
    [
        (found(label=7), "object 1: the class is 7"),
        (found(x="left"), "object 1: coordinates is"),
        ({"label": "cat"}, "write numbers for x, y, width, height"),
        ("text", "object 1: coordinates is None"),
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
