"""Image lists: boxes behind the name of an image, lists of classes, other text files, errors."""

import time

import pytest
from layout_writers import (
    SMALL,
    Annotated,
    Box,
    image_list_line,
    write_image,
    write_image_list,
    write_image_list_roboflow,
    write_voc,
)
from raw_reading import boxes, expected, read, reasons

from retinanet_jax.data.annotations.label_lines import LINE_REPEATED
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats import image_list, image_list_lines, yolo
from retinanet_jax.data.formats.find_layout import describe_layout, find_layout

CAT = ("cat", 4, 6, 20, 12)
LINE = "4,6,24,18,0"


@pytest.fixture
def folder(tmp_path):
    """A function that writes images/a.png, train.txt and classes.txt."""

    def write(text: str, classes: str | None = "cat\ntraffic light\n", name: str = "a.png"):
        write_image(tmp_path / "images", Annotated(name, 64, 48))
        (tmp_path / "train.txt").write_text(text, encoding="utf-8")
        if classes is not None:
            (tmp_path / "classes.txt").write_text(classes, encoding="utf-8")
        return tmp_path

    return write


@pytest.mark.parametrize("write", [write_image_list, write_image_list_roboflow])
def test_each_split_is_read(tmp_path, write):
    write(tmp_path, SMALL)
    found = find_layout(tmp_path)
    assert (found.layout.name, found.place) == ("image_list", tmp_path)
    validation = "val" if write is write_image_list else "valid"
    assert set(found.layout.splits) == {"train", validation}
    for split, name in (("train", "train"), ("val", validation)):
        content = read(image_list.find, tmp_path, name)
        assert boxes(content) == expected(SMALL, split)
        assert (content.class_names, content.box_form) == (("cat", "dog"), "corners")
        assert all(image.path.is_file() for image in content.images)


@pytest.mark.parametrize(
    "name",
    [
        *("a.png", "images/a.png", "./images/a.png", "/home/me/other/a.png", "images\\a.png"),
        *("D:\\my data\\images\\a.png", "C:/Users/J. Doe, Jr/a.png", "a", "old.jpg files/a.png"),
    ],
)
def test_the_image_is_found(folder, name):
    root = folder(f"{name} {LINE} 1.5,2,3.5,4,1\n" if name != "a" else f"b.png {LINE}\na {LINE}\n")
    image = read(image_list.find, root).images[-1]
    assert image.path == root / "images" / "a.png"
    assert image.objects[0].box == CAT[1:]


def test_a_name_may_have_spaces_and_commas(folder):
    name = "a 1,2 b.jpeg"  # .jpe is a suffix, too
    root = folder(f"images/{name}\t{LINE}  30,8,55,48,1 \n", name=name)
    assert boxes(read(image_list.find, root)) == {name: [CAT, ("traffic light", 30, 8, 25, 40)]}


def test_an_image_without_boxes_has_no_objects_and_a_repeated_line_is_read_once(folder):
    write_image(folder("").joinpath("images"), Annotated("b.png", 64, 48))
    root = folder(f"a.png\n\nb.png {LINE}\nb.png {LINE}\n")
    content = read(image_list.find, root)
    assert boxes(content) == {"a.png": [], "b.png": [CAT]}
    assert content.notes == ((LINE_REPEATED, f"{root / 'train.txt'}: line 4"),)


def test_a_long_number_takes_no_time(folder):
    path = folder("a.png " + "1" * 50_000) / "train.txt"
    start = time.process_time()
    assert not image_list_lines.has_boxes(path)
    assert time.process_time() - start < 2
    for line in ("a.png 1.5,2.,.3", "a.png 1,-2,3"):
        folder(line)
        assert image_list_lines.has_boxes(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_may_begin_with_many_images_without_objects(folder, encoding):
    root = folder("")
    lines = [*(f"images/empty_{n:04}.png" for n in range(4000)), f"images/a.png {LINE}"]
    (root / "train.txt").write_text("\n".join(lines), encoding=encoding)
    assert find_layout(root).layout.name == "image_list"
    assert yolo.find(root) is None
    assert boxes(read(image_list.find, root))["a.png"] == [CAT]


def test_the_name_of_a_list_of_classes_may_be_in_upper_case(folder):
    root = folder(f"images/a.png {LINE}\n", classes=None)
    (root / "_classes.TXT").write_text("cat\n", encoding="utf-8")
    assert boxes(read(image_list.find, root))["a.png"] == [CAT]


def test_without_a_list_of_classes_the_numbers_are_the_names(folder):
    content = read(image_list.find, folder(f"a.png {LINE} 1,2,3,4,12\n", classes=None))
    assert content.class_names is None
    assert [o.class_name for o in content.images[0].objects] == ["0", "12"]


def test_names_of_classes_are_read_in_place_of_numbers(folder):
    root = folder(f"a.png {LINE} 1,2,3,4,cat\n")
    assert [o.class_name for o in read(image_list.find, root).images[0].objects] == ["cat", "cat"]


@pytest.mark.parametrize(
    "files, wanted",
    [
        (["model_data/voc_classes.txt"], "voc_classes"),
        (["model_data/cls_classes.txt", "model_data/coco_classes.txt"], "cls_classes"),
        (["data/pets.names", "data/coco.names"], "pets"),
        (["_classes.txt", "model_data/cls_classes.txt"], "_classes"),
        (["classes.txt", "my_classes.txt"], "classes"),
    ],
)
def test_ones_own_list_of_classes_is_taken(folder, files, wanted):
    root = folder(f"a.png {LINE}\n", classes=None)
    for name in files:
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{path.stem}\nother", encoding="utf-8")
    assert read(image_list.find, root).class_names == (wanted, "other")


def test_several_lists_of_classes_are_an_error_that_names_them(folder):
    root = folder(f"a.png {LINE}\n", classes=None)
    (root / "model_data").mkdir()
    for name in ("coco", "voc"):
        (root / f"model_data/{name}_classes.txt").write_text(f"{name} cat", encoding="utf-8")
    wanted = (
        r"train\.txt: several lists .* model_data/coco_classes\.txt, model_data/voc_classes\.txt"
    )
    with pytest.raises(DataError, match=wanted + r"; copy the right one to .*/classes\.txt"):
        read(image_list.find, root)
    (root / "classes.txt").write_text("cat", encoding="utf-8")
    assert read(image_list.find, root).class_names == ("cat",)


def test_two_lists_of_a_split_with_different_images_are_joined(folder):
    root = folder("")
    (root / "train.txt").unlink()
    write_image(root / "images", Annotated("b.png", 64, 48))
    for year, name in ((2007, "a"), (2012, "b")):
        (root / f"{year}_train.txt").write_text(f"{name}.png {LINE}\n", encoding="utf-8")
    assert boxes(read(image_list.find, root)) == {"a.png": [CAT], "b.png": [CAT]}


def test_data_root_may_be_one_list(folder):
    root = folder(f"a.png {LINE}\n")
    assert boxes(read(image_list.find, root / "train.txt")) == {"a.png": [CAT]}
    (root / "data").mkdir()
    (root / "train.txt").rename(root / "data" / "train.txt")
    (root / "data" / "README").mkdir()
    assert boxes(read(image_list.find, root)) == {"a.png": [CAT]}


def test_the_dataset_that_a_list_was_made_of_is_preferred(tmp_path):
    write_voc(tmp_path / "VOCdevkit" / "VOC2007", SMALL)
    lines = [
        image_list_line(image, ["cat", "dog"], "/home/me/VOCdevkit/VOC2007/JPEGImages/")
        for image in SMALL["train"]
    ]
    (tmp_path / "2007_train.txt").write_text("".join(lines), encoding="utf-8")
    assert find_layout(tmp_path).layout.name == "voc"
    assert find_layout(tmp_path, "image_list").place == tmp_path
    assert boxes(read(image_list.find, tmp_path)).keys() == expected(SMALL).keys()


def test_lists_of_images_alone_are_those_of_yolo(folder):
    root = folder("images/a.png\n")
    (root / "images/a.txt").write_text("0 0.5 0.5 0.1 0.1\n", encoding="utf-8")
    assert image_list.find(root) is None
    found = find_layout(root)
    assert found.layout.name == "yolo" and "image_list" not in describe_layout(root, found)
    # A first line without boxes does not make it one of these.
    root = folder(f"images/a.png\nimages/b.png {LINE}\n")
    (root / "images/a.txt").unlink()
    assert yolo.find(root) is None and image_list.find(root) is not None


@pytest.mark.parametrize(
    "text",
    [
        "a.png,4,6,24,18,cat\n",
        "a.png 4 6 24 18 0\n",
        "0--Parade/a.png\n1\n449 330 122 149 0 0 0 0 0 0\n",
        "see images/a.png for an example, 1,2,3,4,5\n",
        "Car 0.00 0 -1.57 4.50 6.25 24.50 18.25 1.57 1.73 4.15 1.00 1.75 13.22 1.62\n",
    ],
)
def test_other_texts_are_not_image_lists(folder, text):
    assert image_list.find(folder(text)) is None


@pytest.mark.parametrize(
    "bad, message",
    [
        ("1,2,3", "line 1: box 2: is '1,2,3'; write x1,y1,x2,y2,class"),
        ("1,2,3,4", "line 1: box 2: is '1,2,3,4'"),
        ("1,2,3,4,5,6,7,8,0", "line 1: box 2: is '1,2,3,4,5,6,7,8,0'"),
        ("1,2,x,4,0", "line 1: box 2: is '1,2,x,4,0'"),
        ("1,2,inf,4,0", "line 1: box 2: is '1,2,inf,4,0'"),
        ("text", "line 1: box 2: is 'text'"),
        ("1,2,3,4,2", "line 1: box 2: has the class '2', but classes are 0 to 1"),
        ("1,2,3,4,-1", "has the class '-1'"),
        ("1,2,3,4,0.5", "has the class '0.5'"),
        ("1,2,3,4,horse", "line 1: box 2: the class is 'horse'"),
        ("1,2,3,4,", "line 1: box 2: the class is ''"),
    ],
)
def test_a_bad_box_is_an_error_that_names_it(folder, bad, message):
    root = folder(f"a.png {LINE} {bad} {LINE}\n")
    with pytest.raises(DataError) as error:
        read(image_list.find, root)
    assert message in str(error.value) and "train.txt" in str(error.value)
    kept = read(image_list.find, root, on_error="skip").images[0].objects
    assert [o.box for o in kept] == [CAT[1:], CAT[1:]]


def test_a_list_whose_boxes_are_all_broken_is_an_error_and_not_left_out(folder):
    root = folder("a.png 4, 6, 24, 18, 0\n")
    (root / "val.txt").write_text(f"a.png {LINE}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"5 x box:\n.*train\.txt: line 1: box 1: is '4,'; write"):
        read(image_list.find, root)


def test_text_in_another_encoding_is_an_error(folder):
    root = folder("")
    (root / "train.txt").write_bytes(f"a.png {LINE}\n狗.png {LINE}\n".encode("gbk"))
    with pytest.raises(DataError, match=r"train\.txt: cannot be read as text in utf-8 .*; save it"):
        read(image_list.find, root)
    (root / "train.txt").write_text(f"a.png {LINE}\r\n", encoding="utf-16", newline="")
    assert boxes(read(image_list.find, root)) == {"a.png": [CAT]}


def test_a_reader_finds_no_reason_to_note_anything_in_a_plain_list(folder):
    assert reasons(read(image_list.find, folder(f"a.png {LINE}\n"))) == {}
    line = image_list_line(Annotated("a.png", 64, 48, (Box(*CAT),)), ["cat"])
    assert line == f"a.png {LINE}\n"
