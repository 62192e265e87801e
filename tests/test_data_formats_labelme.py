"""labelme's JSON: shapes and their boxes, images by path, odd files, errors that name the shape."""

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_writers import (
    SMALL,
    Annotated,
    Box,
    globox_annotations,
    labelme_json,
    write_image,
    write_labelme,
)
from raw_reading import boxes, expected, read, reasons

from retinanet_jax.data.annotations.split_content import NO_BOX, OUTLINE
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats import labelme

IMAGE = Annotated("a.png", 64, 48)


def shape(points: list, kind: str | None = "rectangle", label="cat", **more) -> dict:
    return {"label": label, "points": points, "shape_type": kind, "flags": {}, **more}


@pytest.fixture
def folder(tmp_path):
    """A function that writes a.json beside a.png with the shapes, other fields replaced."""

    def write(*shapes, **fields) -> Path:
        write_image(tmp_path, IMAGE)
        content = labelme_json(IMAGE) | {"shapes": list(shapes)} | fields
        (tmp_path / "a.json").write_text(json.dumps(content), encoding="utf-8")
        return tmp_path

    return write


def test_split_folders_are_read(tmp_path):
    write_labelme(tmp_path, SMALL)
    layout = labelme.find(tmp_path)
    assert (layout.name, layout.tool) == ("labelme", "labelme JSON")
    assert set(layout.splits) == {"train", "val"}
    for split in SMALL:
        content = read(labelme.find, tmp_path, split)
        assert boxes(content) == expected(SMALL, split)
        assert [im.size for im in content.images] == [(i.height, i.width) for i in SMALL[split]]
        assert all(image.path.is_file() for image in content.images)
        assert content.class_names is None and not content.notes


def test_a_folder_of_its_own_and_subfolders(tmp_path):
    for image in SMALL["train"]:
        write_image(tmp_path / "images" / "deep", image)
        path = tmp_path / "labels" / "deep" / f"{Path(image.file_name).stem}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(labelme_json(image)), encoding="utf-8")
    content = read(labelme.find, tmp_path)
    assert boxes(content) == expected(SMALL)
    assert content.images[0].file_name == "images/deep/a.png"
    assert all(image.path.is_file() for image in content.images)


def test_other_json_is_not_labelme(tmp_path, folder):
    (tmp_path / "instances.json").write_text('{"images": [], "annotations": []}')
    assert labelme.find(tmp_path) is None
    assert labelme.find(tmp_path / "nothing") is None
    folder(shape([[1, 2], [3, 4]]))
    assert len(read(labelme.find, tmp_path).images) == 1  # the other file is passed over


def test_a_large_image_before_the_shapes(folder):
    root = folder(shape([[1, 2], [4, 6]]), imageData="A" * 100_000)
    content = json.loads((root / "a.json").read_text("utf-8"))
    (root / "a.json").write_text(json.dumps(content, sort_keys=True), encoding="utf-8")
    assert boxes(read(labelme.find, root)) == {"a.png": [("cat", 1, 2, 3, 4)]}


def test_boxes_of_all_shapes(folder):
    root = folder(
        shape([[30, 40], [10, 20]]),
        shape([[10, 20], [30, 20], [30, 40], [10, 40]]),  # X-AnyLabeling's
        shape([[1, 9], [5, 2], [7, 8]], "polygon"),
        shape([[1, 9], [5, 2], [7, 8]], None),
        shape([[10, 10], [13, 14]], "circle"),
        shape([[2, 3], [4, 6]], "mask", mask="iVBORw0KGgo="),
        shape([[0, 5], [5, 0], [10, 5], [5, 10]], "oriented_rectangle"),
        shape([[1, 1]], "point"),
        shape([[1, 1], [2, 2]], "line"),
        shape([[1, 1], [2, 2], [3, 3]], "linestrip"),
        shape([[1, 1], [2, 2]], label="__ignore__"),
    )
    content = read(labelme.find, root)
    assert [o.box for o in content.images[0].objects] == [
        (10, 20, 20, 20),
        (10, 20, 20, 20),
        (1, 2, 6, 7),
        (1, 2, 6, 7),
        (5, 5, 10, 10),  # the radius is the distance of the points, 5
        (2, 3, 3, 4),  # pixels 2 to 4 and 3 to 6
        (0, 0, 10, 10),
    ]
    assert reasons(content) == {OUTLINE: 1, NO_BOX: 1, labelme.IGNORED: 1}


def test_shapes_of_a_group_are_one_object(folder):
    root = folder(
        shape([[1, 1], [5, 5]], group_id=1),
        shape([[9, 0], [11, 4]], group_id=1),
        shape([[9, 9], [11, 14]], group_id=1, label="dog"),
        shape([[2, 2], [3, 3]], group_id=None),
        shape([[2, 2], [3, 3]], group_id=None),
    )
    content = read(labelme.find, root)
    assert [(o.class_name, o.box) for o in content.images[0].objects] == [
        ("cat", (1, 0, 10, 5)),
        ("dog", (9, 9, 2, 5)),
        ("cat", (2, 2, 1, 1)),
        ("cat", (2, 2, 1, 1)),
    ]
    assert reasons(content) == {labelme.GROUPED: 1}


@pytest.mark.parametrize(
    "stated", ["a.png", "C:\\work\\a.png", "..\\images\\a.png", "../elsewhere/a.png", "b.jpg"]
)
def test_the_image_is_found(folder, stated):
    root = folder(imagePath=stated)
    assert read(labelme.find, root).images[0].path == root / "a.png"


def test_a_path_out_of_the_folder_is_not_followed(folder, tmp_path):
    root = folder(imagePath="../outside.png")
    write_image(root.parent, Annotated("outside.png", 9, 9))
    (root / "a.png").unlink()
    assert read(labelme.find, root).images[0].path == root / "outside.png"  # missing


def test_image_path_decides_between_two_images_of_one_name(folder):
    root = folder()
    write_image(root, Annotated("a.bmp", 64, 48))
    assert read(labelme.find, root).images[0].path.name == "a.png"
    folder(imagePath="x.png")
    with pytest.raises(DataError, match=r"may belong to a\.bmp or a\.png"):
        read(labelme.find, root)


@pytest.mark.parametrize("height", [None, 0, "tall", 1.5, True, float("nan")])
def test_a_size_that_is_missing_or_odd_is_not_stated(folder, height):
    assert read(labelme.find, folder(imageHeight=height)).images[0].size is None


@pytest.mark.parametrize(
    "bad, message",
    [
        (shape([[1, 2], [3, 4]], label=7), "shapes[1]: label is 7"),
        (shape([[1, 2], [3, 4]], label=""), "shapes[1]: label is ''"),
        (shape([[1, 2], [3]]), "shapes[1]: points is [[1, 2], [3]]"),
        (shape([[1, 2], [3, "x"]]), "shapes[1]: points is"),
        (shape([[1, 2], [3, float("nan")]]), "shapes[1]: points is"),
        (shape([]), "shapes[1]: points is []"),
        (shape([[1, 2]]), "is a 'rectangle' of 1 points"),
        (shape([[1, 2], [3, 4]], "polygon"), "is a 'polygon' of 2 points"),
        (shape([[1, 2], [3, 4]], "star"), "is a 'star' of 2 points"),
        (shape([[1, 2], [3, 4]], ["x"]), "is a ['x'] of 2 points"),
        ("text", "shapes[1]: is 'text'"),
    ],
)
def test_a_bad_shape_is_an_error_that_names_it(folder, bad, message):
    root = folder(shape([[1, 2], [3, 4]]), bad)
    with pytest.raises(DataError) as error:
        read(labelme.find, root)
    assert message in str(error.value) and "a.json" in str(error.value)
    assert len(read(labelme.find, root, on_error="skip").images[0].objects) == 1


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"shapes": [', "is not JSON"),
        ('{"shapes": [' + "[" * 100_000, "is not JSON"),
        ('{"shapes": [], "imagePath": 3}', "imagePath is 3"),
        ('{"shapes": []}', "imagePath is None"),
        ('{"x": {"shapes": []}, "shapes": 3}', "shapes is 3"),
    ],
)
def test_a_broken_file_is_an_error_that_names_it(folder, text, message):
    root = folder()
    (root / "a.json").write_text(text)
    with pytest.raises(DataError) as error:
        read(labelme.find, root)
    assert message in str(error.value) and "a.json" in str(error.value)


def test_text_with_a_byte_order_mark_and_names_of_classes(folder):
    root = folder(shape([[1, 2], [3, 4]], label="größe 猫"))
    text = (root / "a.json").read_text(encoding="utf-8")
    for encoding in ("utf-8-sig", "utf-16"):
        (root / "a.json").write_bytes(text.encode(encoding))
        assert read(labelme.find, root).images[0].objects[0].class_name == "größe 猫"
    names = "__ignore__\n_background_\ndog\ngröße 猫\n"
    (root / "labels.txt").write_text(names, encoding="utf-8")
    assert read(labelme.find, root).class_names == ("dog", "größe 猫")
    (root / "labels.txt").write_text("dog\n", encoding="utf-8")
    with pytest.raises(DataError, match="add it to the list of classes"):
        read(labelme.find, root)


numbers = st.floats(0, 1000)
names = st.text(min_size=1, max_size=9).map(str.strip)
names = names.filter(lambda n: len(n.splitlines()) == 1 and n.isprintable())
written = st.lists(st.builds(Box, names, numbers, numbers, numbers, numbers), max_size=4)


@settings(max_examples=30, deadline=None)
@given(written)
def test_boxes_and_names_come_back(tmp_path_factory, found):
    root = tmp_path_factory.mktemp("labelme")
    write_labelme(root, {"train": [Annotated("a.png", 64, 48, tuple(found))]})
    for one, other in zip(boxes(read(labelme.find, root))["a.png"], found, strict=True):
        assert one[0] == other.name and one[1:] == pytest.approx(other[1:], abs=1e-9)


def test_files_written_by_globox_read_back_equal(tmp_path):
    annotations = globox_annotations(tmp_path, SMALL["train"])
    annotations.save_labelme(tmp_path)
    assert boxes(read(labelme.find, tmp_path)) == expected(SMALL)


def test_labelme_reads_what_the_writer_writes(tmp_path, monkeypatch):
    label_file = pytest.importorskip("labelme._label_file")
    write_labelme(tmp_path, {"train": SMALL["train"][:1]})
    loaded = label_file.LabelFile(str(tmp_path / "train" / "a.json"))
    corners = [[x for point in s["points"] for x in point] for s in loaded.shapes]
    wanted = [[b.x, b.y, b.x + b.width, b.y + b.height] for b in SMALL["train"][0].boxes]
    assert corners == wanted and "labelme" in sys.modules
