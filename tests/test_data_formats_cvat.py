"""CVAT's XML: shapes, subsets, the list of labels, errors that name the shape."""

import math
import time

import pytest
from layout_writers import (
    SMALL,
    Annotated,
    cvat_image,
    cvat_xml,
    datumaro_export,
    globox_annotations,
    write_cvat,
    write_image,
)
from raw_reading import boxes, expected, read, reasons

from retinanet_jax.data.annotations.split_content import NO_BOX, OUTLINE
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats import cvat

IMAGE = Annotated("a.png", 64, 48)
GOOD = '<box label="cat" xtl="4" ytl="6" xbr="24" ybr="18"/>'


@pytest.fixture
def folder(tmp_path):
    """A function that writes images/a.png and annotations.xml with some shapes."""

    def write(*shapes: str, names=("cat",)):
        write_image(tmp_path / "images", IMAGE)
        text = cvat_xml(list(names), [cvat_image(IMAGE, "".join(shapes))])
        (tmp_path / "annotations.xml").write_text(text, encoding="utf-8")
        return tmp_path

    return write


def test_subsets_are_splits(tmp_path):
    write_cvat(tmp_path, SMALL)
    layout = cvat.find(tmp_path)
    assert (layout.tool, layout.splits) == ("CVAT for images", ("train", "val"))
    for split in SMALL:
        content = read(cvat.find, tmp_path, split)
        assert boxes(content) == expected(SMALL, split)
        assert content.class_names == ("cat", "dog")
        assert [image.size for image in content.images] == [
            (image.height, image.width) for image in SMALL[split]
        ]
        assert all(image.path.is_file() for image in content.images)


def test_subsets_of_several_files_are_joined(tmp_path):
    for number in range(2):
        images = []
        for split in ("train", "val"):
            image = Annotated(f"{split}{number}.png", 64, 48)
            write_image(tmp_path / "images", image)
            images.append(cvat_image(image, GOOD, subset=split))
        text = cvat_xml(["cat"], images)
        (tmp_path / f"task{number}.xml").write_text(text, encoding="utf-8")
    assert cvat.find(tmp_path).splits == ("train", "val")
    assert list(boxes(read(cvat.find, tmp_path, "val"))) == ["val0.png", "val1.png"]
    assert len(read(cvat.find, tmp_path).images) == 2


def test_subsets_are_found_in_no_time_whatever_their_names(tmp_path):
    images = [Annotated(f"{n}.png", 64, 48) for n in range(3)]
    for image in images:
        write_image(tmp_path / "images", image)
    subsets = ['a & b > "c"', "тест", ""]
    elements = [
        cvat_image(image, GOOD, subset=subset)
        for image, subset in zip(images, subsets, strict=True)
    ]
    path = tmp_path / "annotations.xml"
    path.write_text(cvat_xml(["cat"], elements), encoding="utf-8")
    splits = (*subsets[:2], "default")
    assert cvat.find(tmp_path).splits == splits
    for split, image in zip(splits, images, strict=True):
        assert list(boxes(read(cvat.find, tmp_path, split))) == [image.file_name]
    # The layout of 30,000 images with 10 objects each is found without parsing the file.
    many = [cvat_image(images[1], 10 * GOOD, subset=subsets[1])] * 30_000
    path.write_text(cvat_xml(["cat"], [elements[0], *many]), encoding="utf-8")
    start = time.process_time()
    assert cvat.find(tmp_path).splits == splits[:2]
    assert time.process_time() - start < 0.8


def write_tasks(root, subsets):
    """A file for each subset, with one image in it."""
    for number, subset in enumerate(subsets):
        image = Annotated(f"{number}.png", 64, 48)
        write_image(root / "images", image)
        text = cvat_xml(["cat"], [cvat_image(image, GOOD, subset=subset)])
        (root / f"task{number:02d}.xml").write_text(text, encoding="utf-8")


def test_subsets_count_in_any_number_of_files(tmp_path):
    write_tasks(tmp_path, ["train", "val"] * 11)
    assert cvat.find(tmp_path).splits == ("train", "val")
    for split, first in (("train", 0), ("val", 1)):
        found = boxes(read(cvat.find, tmp_path, split))
        assert list(found) == [f"{number}.png" for number in range(first, 22, 2)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize(
    "subsets, splits",
    [
        (("R&D", "val"), ("R&D", "val")),
        (('"a" < b', "\u00e4"), ('"a" < b', "\u00e4")),
        (("", "val"), ("default", "val")),
        (("", ""), ("train",)),
    ],
)
def test_each_image_is_in_the_split_of_its_subset(tmp_path, encoding, subsets, splits):
    images = [Annotated(f"{number}.png", 64, 48) for number in range(len(subsets))]
    elements = []
    for image, subset in zip(images, subsets, strict=True):
        write_image(tmp_path / "images", image)
        elements.append(cvat_image(image, GOOD, **({"subset": subset} if subset else {})))
    text = cvat_xml(["cat"], elements).replace("utf-8", encoding)
    (tmp_path / "annotations.xml").write_text(text, encoding=encoding)
    assert cvat.find(tmp_path).splits == splits
    found = [list(boxes(read(cvat.find, tmp_path, split))) for split in splits]
    assert found == ([["0.png"], ["1.png"]] if len(splits) == 2 else [["0.png", "1.png"]])


def test_a_broken_file_among_several_is_an_error_when_it_is_read(tmp_path):
    write_tasks(tmp_path, ["train", "train", "val"])
    path = tmp_path / "task01.xml"
    path.write_text(path.read_text(encoding="utf-8")[:-5], encoding="utf-8")
    with pytest.raises(DataError, match=r"task01\.xml: cannot be read as XML"):
        read(cvat.find, tmp_path)
    assert list(boxes(read(cvat.find, tmp_path, on_error="skip"))) == ["0.png"]


def test_copies_of_a_file_are_read_once(folder):
    root = folder(GOOD)
    text = (root / "annotations.xml").read_text(encoding="utf-8")
    (root / "copy.xml").write_text(text, encoding="utf-8")
    assert len(read(cvat.find, root).images) == 1
    (root / "copy.xml").write_text(text.replace('"24"', '"25"'), encoding="utf-8")
    with pytest.raises(DataError, match=r"both annotations\.xml and copy\.xml annotate 'train'"):
        cvat.find(root)


def test_a_task_is_one_split(folder):
    assert cvat.find(folder(GOOD)).splits == ("train",)


def test_boxes_of_all_shapes(folder):
    root = folder(
        '<box label="cat" xtl="10" ytl="20" xbr="30" ybr="24" rotation="90.0"/>',
        '<polygon label="cat" points="1.5,9;5,2;7,8"/>',
        '<ellipse label="cat" cx="10" cy="20" rx="5" ry="2" rotation="90"/>',
        '<mask label="cat" rle="1, 2" left="3" top="4" width="5" height="6"/>',
        '<cuboid label="cat" xtl1="1" ytl1="2" xbl1="1" ybl1="9" xtr1="5" ytr1="2" xbr1="5" '
        'ybr1="9" xtl2="3" ytl2="1" xbl2="3" ybl2="8" xtr2="7" ytr2="1" xbr2="7" ybr2="8"/>',
        '<points label="cat" points="1,2"/>',
        '<polyline label="cat" points="1,2;3,4"/>',
        '<skeleton label="cat"><points label="eye" points="1,2"/></skeleton>',
        '<tag label="cat"/>',
    )
    content = read(cvat.find, root)
    wanted = [(18, 12, 4, 20), (1.5, 2, 5.5, 7), (8, 15, 4, 10), (3, 4, 5, 6), (1, 1, 6, 8)]
    assert [o.box for o in content.images[0].objects] == list(map(pytest.approx, wanted))
    assert reasons(content) == {OUTLINE: 1, NO_BOX: 1}
    eighth = folder('<box label="cat" xtl="10" ytl="10" xbr="20" ybr="20" rotation="45"/>')
    side = 10 * math.sqrt(2)
    box = read(cvat.find, eighth).images[0].objects[0].box
    assert box == pytest.approx((15 - side / 2, 15 - side / 2, side, side))


def test_labels_without_boxes_are_not_classes(folder):
    root = folder(GOOD)
    text = (root / "annotations.xml").read_text(encoding="utf-8")
    more = "<label><name>blurred</name><type>tag</type></label></labels>"
    (root / "annotations.xml").write_text(text.replace("</labels>", more), encoding="utf-8")
    assert read(cvat.find, root).class_names == ("cat",)


@pytest.mark.parametrize(
    "bad, message",
    [
        ('<box label="dog" xtl="4" ytl="6" xbr="24" ybr="18"/>', "box 1: the class is 'dog'"),
        ('<box label="cat" xtl="4" ytl="6" xbr="24"/>', "box 1: ybr is None"),
        ('<box label="cat" xtl="4" ytl="6" xbr="24" ybr="nan"/>', "box 1: ybr is 'nan'"),
        ('<box xtl="4" ytl="6" xbr="24" ybr="18"/>', "box 1: the class is None"),
        ('<polygon label="cat" points="1,2;3,4"/>', "polygon 1: points is '1,2;3,4'"),
        ('<polygon label="cat" points="1,2;3;4,5"/>', "write at least three points"),
    ],
)
def test_a_bad_shape_is_an_error_that_names_it(folder, bad, message):
    root = folder(GOOD, bad)
    with pytest.raises(DataError) as error:
        read(cvat.find, root)
    assert message in str(error.value) and "image 'a.png'" in str(error.value)
    assert len(read(cvat.find, root, on_error="skip").images[0].objects) == 1


def test_files_written_by_globox_read_back_equal(tmp_path):
    annotations = globox_annotations(tmp_path / "images", SMALL["train"])
    annotations.save_cvat(tmp_path / "annotations.xml")
    assert boxes(read(cvat.find, tmp_path)) == expected(SMALL)


def test_files_written_by_datumaro_read_back_equal(tmp_path):
    datumaro_export(tmp_path, SMALL["train"], "cvat")
    content = read(cvat.find, tmp_path / "out")
    assert boxes(content) == expected(SMALL)
    assert all(image.path.is_file() for image in content.images)
