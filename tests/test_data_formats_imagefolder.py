"""Hugging Face's imagefolder: metadata files, forms of objects, class names, errors by line."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_writers import SMALL, Annotated, Box, write_image, write_imagefolder
from raw_reading import boxes, expected, read

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats import imagefolder

OBJECTS = {"bbox": [[1, 2, 3, 4]], "categories": [0]}


@pytest.fixture
def folder(tmp_path):
    """A function that writes lines of metadata.jsonl beside a.png."""

    def write(*lines, name: str = "metadata.jsonl") -> Path:
        write_image(tmp_path, Annotated("a.png", 64, 48))
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (tmp_path / name).write_text("\n".join(texts), encoding="utf-8")
        return tmp_path

    return write


def entry(objects, **more) -> dict:
    return {"file_name": "a.png", "objects": objects, **more}


def test_split_folders_are_read(tmp_path):
    write_imagefolder(tmp_path / "x", SMALL)
    write_imagefolder(tmp_path / "y" / "data", SMALL)
    for root, start in ((tmp_path / "x", ""), (tmp_path / "y", "data/")):
        layout = imagefolder.find(root)
        assert layout.name == "imagefolder" and set(layout.splits) == {"train", "val"}
        for split in SMALL:
            content = read(imagefolder.find, root, split)
            assert boxes(content) == expected(SMALL, split)
            assert all(image.path.is_file() for image in content.images)
            wanted = [f"{start}{split}/{image.file_name}" for image in SMALL[split]]
            assert [image.file_name for image in content.images] == wanted


def test_one_file_names_the_images_of_all_splits(folder):
    root = folder(
        {"file_name": "train/a.png", "objects": OBJECTS},
        {"file_name": "validation/b.png", "objects": OBJECTS},
    )
    assert imagefolder.find(root).splits == ("train", "validation")
    assert boxes(read(imagefolder.find, root, "validation")).keys() == {"b.png"}


@pytest.mark.parametrize(
    "objects",
    [
        {"bbox": [[1, 2, 3, 4]], "category": [0], "area": [12.0], "iscrowd": [1]},
        [{"bbox": [1, 2, 3, 4], "category_id": 0, "area": 12, "iscrowd": 1}],
    ],
)
def test_forms_of_objects(folder, objects):
    (image,) = read(imagefolder.find, folder(entry(objects, width=64, height=48))).images
    (found,) = image.objects
    assert image.size == (48, 64) and found.box == (1, 2, 3, 4)
    assert (found.class_name, found.area, found.crowd) == ("0", 12, True)


@pytest.mark.parametrize(
    "fields",
    [
        {"annotations": OBJECTS},
        {"labels": [{"bbox": [1, 2, 3, 4], "category": 0}], "tags": ["x", "y"]},
        {"bbox": [[1, 2, 3, 4]], "label": [0], "tags": ["x", "y"]},
    ],
)
def test_objects_in_another_field_or_in_the_entry(folder, fields):
    empty = {"file_name": "b.png"}, {"file_name": "c.png", "bbox": None, "label": None}
    content = read(imagefolder.find, folder({"file_name": "a.png", **fields}, *empty))
    assert boxes(content) == {"a.png": [("0", 1, 2, 3, 4)], "b.png": [], "c.png": []}


def test_images_without_objects(folder):
    root = folder(entry(OBJECTS), entry(None), entry({"bbox": [], "categories": []}), entry([]))
    content = read(imagefolder.find, root)
    assert [len(image.objects) for image in content.images] == [1, 0, 0, 0]


def test_a_csv_file_with_objects_as_json(folder):
    cell = json.dumps(OBJECTS).replace('"', '""')
    text = f'file_name,width,height,objects\na.png,64,48,"{cell}"\na.png,,,\n'
    content = read(imagefolder.find, folder(text, name="metadata.csv"))
    assert [image.size for image in content.images] == [(48, 64), None]
    assert content.images[0].objects[0].box == (1, 2, 3, 4)


@pytest.mark.parametrize(
    "objects",
    [
        {"bbox": [[1.0, 2, 3, 4], [5, 6, 7, 8]], "label": ["cat", "it's"], "ignore": [False, True]},
        [
            {"bbox": (1.0, 2, 3, 4), "label": "cat", "area": None},
            {"bbox": (5, 6, 7, 8), "label": "it's", "is_crowd": True},
        ],
    ],
)
def test_a_csv_file_with_objects_as_python_shows_them(folder, objects):
    """As pandas writes a column of dicts or lists."""
    cell = str(objects).replace('"', '""')
    root = folder(f'file_name,objects\na.png,"{cell}"\n', name="metadata.csv")
    content = read(imagefolder.find, root)
    assert boxes(content) == {"a.png": [("cat", 1, 2, 3, 4), ("it's", 5, 6, 7, 8)]}
    assert [o.crowd for o in content.images[0].objects] == [False, True]


@pytest.mark.parametrize("cell", ["{'bbox': array([1, 2])}", "{'bbox': [[1, 2, 3, 4]]", "f()"])
def test_other_objects_in_a_csv_file_are_an_error(folder, cell):
    root = folder(f'file_name,objects\na.png,"{cell}"\n', name="metadata.csv")
    with pytest.raises(DataError, match=r"metadata\.csv: line 2: objects is JSONDecodeError"):
        read(imagefolder.find, root)


def test_other_metadata_is_not_recognized(folder):
    assert imagefolder.find(folder({"file_name": "a.png", "label": 3})) is None
    assert imagefolder.find(folder("", name="metadata.jsonl")) is None
    (folder("") / "metadata.jsonl").unlink()
    assert imagefolder.find(folder("file_name,label\na.png,3\n", name="metadata.csv")) is None


def test_class_names(folder):
    root = folder(entry({"bbox": [[1, 2, 3, 4]], "categories": [1]}))
    header = """---
license: mit
dataset_info:
  features:
  - name: objects
    sequence:
    - name: category
      dtype:
        class_label:
          names:
            '0': cat
            '1': 'no'
---
# A dataset
"""
    (root / "README.md").write_text(header, encoding="utf-8")
    content = read(imagefolder.find, root)
    assert content.class_names == ("cat", "no")
    assert content.images[0].objects[0].class_name == "no"
    (root / "classes.txt").write_text("one\ntwo\n", encoding="utf-8")
    assert read(imagefolder.find, root).class_names == ("one", "two")
    (root / "classes.txt").unlink()
    for text in ("# no header", "---\n[\n---\n", "---\nlicense: mit\n---\n"):
        (root / "README.md").write_text(text, encoding="utf-8")
        assert read(imagefolder.find, root).class_names is None


@pytest.mark.parametrize(
    "bad, message",
    [
        ('{"file_name": ', "line 2: is not JSON"),
        ("[" * 100_000, "line 2: is not JSON"),
        ("3", "line 2: is 3"),
        ({"objects": OBJECTS}, "line 2: has no field 'file_name'"),
        ({"file_name": 3}, "line 2: file_name is 3"),
        ({"file_name": "../../etc/a.png"}, "line 2: file_name '../../etc/a.png' leads out"),
        (
            {"file_name": "b.png", "bbox": [1, 2, 3, 4], "label": 0},
            "line 2: has no field 'objects'",
        ),
        (
            {"file_name": "b.png", "one": OBJECTS, "two": OBJECTS},
            "but has boxes in one, two; write",
        ),
        (entry("text"), "line 2: objects is 'text'"),
        (entry([3]), "line 2: objects is [3]"),
        (entry({"bbox": [[1, 2, 3, 4]], "category": []}), "lists of different lengths"),
        (entry({"bbox": [[1, 2, 3]], "category": [0]}), "line 2: object 0: bbox is [1, 2, 3]"),
        (entry({"bbox": [None], "category": [0]}), "line 2: object 0: bbox is None"),
        (entry({"bbox": [[1, 2, 3, 4]]}), "line 2: object 0: has no field 'category'"),
        (entry([{"bbox": [1, 2, 3, 4], "label": -1}]), "object 0: the class is -1"),
        (entry([{"bbox": [1, 2, 3, 4], "label": True}]), "object 0: the class is True"),
        (entry([{"bbox": [1, 2, 3, 4], "label": 0, "area": "x"}]), "object 0: area is 'x'"),
    ],
)
def test_a_bad_line_is_an_error_that_names_it(folder, bad, message):
    root = folder(entry(OBJECTS), bad)
    with pytest.raises(DataError) as error:
        read(imagefolder.find, root)
    assert message in str(error.value) and "metadata.jsonl" in str(error.value)
    skipped = read(imagefolder.find, root, on_error="skip")
    assert sum(len(image.objects) for image in skipped.images) == 1


names = st.text(min_size=1).filter(str.strip)
numbers = st.floats(0, 1000)
written = st.lists(st.builds(Box, names, numbers, numbers, numbers, numbers), max_size=4)


@settings(max_examples=30, deadline=None)
@given(written)
def test_boxes_and_names_come_back(tmp_path_factory, found):
    root = tmp_path_factory.mktemp("imagefolder")
    image = Annotated("a.png", 64, 48, tuple(found))
    write_imagefolder(root, {"train": [image]})
    assert boxes(read(imagefolder.find, root)) == expected({"train": [image]})
