"""VOC XML with own classes: forms of folder, images by name, odd boxes, errors, damaged XML."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_writers import (
    SMALL,
    Annotated,
    Box,
    voc_xml,
    write_image,
    write_voc,
    write_voc_beside,
)
from raw_reading import boxes, expected, read, reasons

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats import voc_folder
from retinanet_jax.data.formats import voc_xml as voc_xml_reader
from retinanet_jax.data.formats.find_layout import find_layout

IMAGE = Annotated("a.png", 64, 48)
BOX = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>11</xmax><ymax>22</ymax></bndbox>"


@pytest.fixture
def folder(tmp_path):
    """A function that writes a.xml beside a.png, its objects as given."""

    def write(objects: str, image: Annotated = IMAGE) -> Path:
        write_image(tmp_path, image)
        (tmp_path / "a.xml").write_text(voc_xml(image, objects), encoding="utf-8")
        return tmp_path

    return write


@pytest.mark.parametrize(
    "write, tool",
    [(write_voc, "Pascal VOC XML"), (write_voc_beside, "Pascal VOC XML beside the images")],
)
def test_each_form_of_folder_is_recognised_and_read(tmp_path, write, tool):
    write(tmp_path, SMALL)
    layout = voc_folder.find(tmp_path)
    assert (layout.name, layout.tool, set(layout.splits)) == ("voc", tool, {"train", "val"})
    for split in SMALL:
        content = read(voc_folder.find, tmp_path, split)
        assert boxes(content) == expected(SMALL, split)
        assert [im.size for im in content.images] == [(i.height, i.width) for i in SMALL[split]]
        assert all(image.path.is_file() for image in content.images)
        assert content.class_names is None and not content.notes


def move(root: Path, folders: dict[str, str]) -> None:
    for old, new in folders.items():
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / old).rename(root / new)


def test_folders_of_other_names_and_places(tmp_path):
    write_voc(tmp_path / "a", SMALL)
    write_voc(tmp_path / "b", SMALL)
    write_voc_beside(tmp_path / "c", SMALL)
    for root in (tmp_path / "a", tmp_path / "b"):
        for file in (root / "ImageSets" / "Main").iterdir():
            file.unlink()
        (root / "ImageSets" / "Main").rmdir()
        (root / "ImageSets").rmdir()
    move(tmp_path / "a", {"Annotations": "annotations/xmls", "JPEGImages": "images"})
    move(tmp_path / "b", {"Annotations": "train/annotations", "JPEGImages": "train/images"})
    everything = expected(SMALL) | expected(SMALL, "val")
    assert boxes(read(voc_folder.find, tmp_path / "a")) == everything
    assert boxes(read(voc_folder.find, tmp_path / "b")) == everything
    (tmp_path / "outer").mkdir()
    (tmp_path / "c").rename(tmp_path / "outer" / "VOC2007")
    content = read(voc_folder.find, tmp_path / "outer", "val")
    assert [image.file_name for image in content.images] == ["VOC2007/val/d.png"]


def test_annotations_in_split_folders_with_images_in_one(tmp_path):
    write_voc_beside(tmp_path, SMALL)
    for split in SMALL:
        for path in sorted((tmp_path / split).iterdir()):
            place = "images" if path.suffix == ".png" else f"Annotations/{split}"
            move(tmp_path, {f"{split}/{path.name}": f"{place}/{path.name}"})
        (tmp_path / split).rmdir()
    assert set(voc_folder.find(tmp_path).splits) == {"train", "val"}
    assert boxes(read(voc_folder.find, tmp_path, "val")) == expected(SMALL, "val")


@pytest.mark.parametrize("listed", ["{}/{}", "{1}"])
def test_lists_that_name_the_files_of_folders_come_before_the_folders(tmp_path, listed):
    """Datumaro's export of images in folders; a list may leave the folders out."""
    for split, images in SMALL.items():
        for image in images:
            write_image(tmp_path / "JPEGImages" / split, image)
            path = tmp_path / "Annotations" / split / image.file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".xml").write_text(voc_xml(image), encoding="utf-8")
    lists = {"default": ["train/a", "train/c", "val/d"], "val": ["val/d"]}
    for name, entries in lists.items():
        lines = [listed.format(*entry.split("/")) for entry in entries]
        path = tmp_path / "ImageSets" / "Main" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines), encoding="utf-8")
    layout = find_layout(tmp_path).layout
    assert (layout.name, layout.splits) == ("voc", ("default", "val"))
    everything = expected(SMALL) | expected(SMALL, "val")
    wanted = {name: everything[name] for name in ("a.png", "c.png", "d.png")}
    content = read(voc_folder.find, tmp_path, "default")
    assert boxes(content) == wanted and not content.notes
    assert boxes(read(voc_folder.find, tmp_path, "val")) == expected(SMALL, "val")


def test_a_list_names_the_file_in_the_folder_of_its_split_or_none(tmp_path):
    for split, size in (("train", 64), ("val", 48)):
        image = Annotated("a.png", size, size, (Box("cat", 1, 2, 10, size / 2),))
        write_image(tmp_path / "JPEGImages" / split, image)
        (tmp_path / "Annotations" / split).mkdir(parents=True)
        path = tmp_path / "Annotations" / split / "a.xml"
        path.write_text(voc_xml(image), encoding="utf-8")
        (tmp_path / "ImageSets").mkdir(exist_ok=True)
        (tmp_path / "ImageSets" / f"{split}.txt").write_text("a\n", encoding="utf-8")
        (tmp_path / "ImageSets" / "trainval.txt").write_text("a\n", encoding="utf-8")
    for split, height in (("train", 32), ("val", 24)):
        content = read(voc_folder.find, tmp_path, split)
        assert boxes(content) == {"a.png": [("cat", 1, 2, 10, height)]}
    with pytest.raises(DataError, match=r"trainval\.txt: line 1: neither"):
        read(voc_folder.find, tmp_path, "trainval")


def test_a_split_folder_that_no_list_names_is_a_split(tmp_path):
    write_voc(tmp_path, {"train": SMALL["train"]})
    for image in SMALL["val"]:
        write_image(tmp_path / "JPEGImages" / "test", image)
        (tmp_path / "Annotations" / "test").mkdir()
        path = tmp_path / "Annotations" / "test" / image.file_name
        path.with_suffix(".xml").write_text(voc_xml(image), encoding="utf-8")
    assert voc_folder.find(tmp_path).splits == ("train", "test")
    assert boxes(read(voc_folder.find, tmp_path, "train")) == expected(SMALL)
    assert boxes(read(voc_folder.find, tmp_path, "test")) == expected(SMALL, "val")


def test_lists_of_single_classes_are_not_splits(tmp_path):
    write_voc(tmp_path, SMALL)
    (tmp_path / "ImageSets" / "Main" / "cat_train.txt").write_text("a  1\nb -1\n")
    (tmp_path / "ImageSets" / "Main" / "default.txt").write_text('a.png\n"b 1"\nd  1\n')
    assert set(voc_folder.find(tmp_path).splits) == {"train", "val", "default"}
    assert boxes(read(voc_folder.find, tmp_path, "default")).keys() == {"a.png", "b 1.png", "d.png"}


def test_a_listed_image_without_xml_has_no_objects_and_one_without_a_file_is_an_error(tmp_path):
    write_voc(tmp_path, SMALL)
    (tmp_path / "Annotations" / "c.xml").unlink()
    content = read(voc_folder.find, tmp_path)
    assert boxes(content)["c.png"] == [] and reasons(content) == {voc_folder.NO_XML: 1}
    (tmp_path / "JPEGImages" / "c.png").unlink()
    with pytest.raises(DataError, match=r"train\.txt: line 3: .* is named 'c'"):
        read(voc_folder.find, tmp_path)


def test_other_xml_is_not_recognized(tmp_path):
    (tmp_path / "a.xml").write_text("<annotations><image/></annotations>")
    assert voc_folder.find(tmp_path) is None
    assert voc_folder.find(tmp_path / "nothing") is None
    assert voc_folder.find(tmp_path / "a.xml") is None


@pytest.mark.parametrize(
    "file_name, stated",
    [
        ("a.png", "a.png"),
        ("a.png", "a.jpg"),  # another suffix
        ("a.png", "a"),
        ("a.png", "C:\\pictures\\a.png"),
        ("a.png", "renamed since.png"),
        ("a.png", ""),
        ("other.png", "other.png"),  # the XML's own name has no image
        ("other.png", "/home/me/other.jpg"),
    ],
)
def test_the_image_is_found(tmp_path, file_name, stated):
    write_image(tmp_path, Annotated(file_name, 64, 48))
    text = voc_xml(IMAGE, "").replace("<filename>a.png", f"<filename>{stated}")
    (tmp_path / "a.xml").write_text(text, encoding="utf-8")
    content = read(voc_folder.find, tmp_path)
    assert content.images[0].path == tmp_path / file_name and not content.notes


def test_an_out_of_date_filename_that_names_another_image_is_noted(folder):
    root = folder("")
    write_image(root, Annotated("b.png", 64, 48))
    text = (root / "a.xml").read_text(encoding="utf-8")
    (root / "b.xml").write_text(text, encoding="utf-8")  # a copy, its filename still a.png
    content = read(voc_folder.find, root)
    assert [image.path.name for image in content.images] == ["a.png", "b.png"]
    assert reasons(content) == {voc_folder.OTHER_FILE_NAME: 1}


def test_filename_decides_between_two_images_of_one_name(folder):
    root = folder("")
    write_image(root, Annotated("a.bmp", 64, 48))
    assert read(voc_folder.find, root).images[0].path.name == "a.png"
    text = (root / "a.xml").read_text(encoding="utf-8")
    (root / "a.xml").write_text(text.replace("a.png", "x.png"), encoding="utf-8")
    with pytest.raises(DataError, match=r"may belong to a\.bmp or a\.png"):
        read(voc_folder.find, root)


def test_an_image_that_is_nowhere_is_named_as_stated(folder):
    root = folder("")
    (root / "a.png").unlink()
    assert read(voc_folder.find, root).images[0].path == root / "a.png"


def test_difficult_floats_and_a_missing_size(folder):
    floats = BOX.replace("<xmin>1<", "<xmin> 1.25 <").replace("<ymax>22<", "<ymax>2.2e1<")
    root = folder(
        f"<object><name> cat </name><difficult>1</difficult>{floats}</object>"
        f"<object><name>dog</name><difficult>Unspecified</difficult>{BOX}</object>"
        f"<object><name>dog</name>{BOX}<part><name>head</name>{BOX}</part></object>",
    )
    text = (root / "a.xml").read_text(encoding="utf-8")
    (root / "a.xml").write_text(text.replace("<width>64", "<width>0"), encoding="utf-8")
    image = read(voc_folder.find, root).images[0]
    assert image.size is None
    assert [(o.class_name, o.crowd) for o in image.objects] == [
        ("cat", True),
        ("dog", False),
        ("dog", False),
    ]
    assert image.objects[0].box == (1.25, 2, 9.75, 20)


def test_rotated_boxes_and_polygons_become_bounding_boxes(folder):
    turned = (
        "<attributes><attribute><name>rotation</name><value>{}</value></attribute></attributes>"
    )
    root = folder(
        f"<object><name>cat</name>{BOX}{turned.format('90.0')}</object>"
        f"<object><name>cat</name>{BOX}{turned.format('0.0')}</object>"
        "<object><name>cat</name><robndbox><cx>20</cx><cy>20</cy><w>10</w><h>10</h>"
        f"<angle>{math.pi / 4}</angle></robndbox></object>"
        "<object><name>cat</name><polygon><x1>5</x1><y1>6</y1><x2>9</x2><y2>1</y2><x3>7</x3>"
        "<y3>8</y3></polygon></object>"
        "<object><name>cat</name><polygon><pt><x>1</x><y>2</y></pt><pt><x>3</x><y>9</y></pt>"
        "<pt><x>0</x><y>4</y></pt><username>me</username></polygon></object>"
        f"<object><name>cat</name><deleted>1</deleted>{BOX}</object>"
        f"<object><name>cat</name>{BOX}<polygon><x1>0</x1><y1>0</y1></polygon></object>"
    )
    content = read(voc_folder.find, root)
    found = [o.box for o in content.images[0].objects]
    half = 10 * math.sqrt(2)
    assert found[0] == pytest.approx((-4, 7, 20, 10))  # 10 x 20 about (6, 12)
    assert found[1] == (1, 2, 10, 20)
    assert found[2] == pytest.approx((20 - half / 2, 20 - half / 2, half, half))
    assert found[3] == (5, 1, 4, 7)
    assert found[4] == (0, 2, 3, 7)
    assert found[5:] == [(1, 2, 10, 20)]
    assert reasons(content) == {
        voc_xml_reader.ROTATED: 1,
        voc_xml_reader.POLYGON: 1,
        voc_xml_reader.DELETED: 1,
    }


@pytest.mark.parametrize(
    "objects, message",
    [
        (f"<object>{BOX}</object>", "object 1: the class is ''"),
        ("<object><name>cat</name></object>", "object 1: has no bndbox"),
        (f"<object><name>cat</name>{BOX.replace('11', 'x')}</object>", "bndbox has xmax 'x'"),
        (f"<object><name>cat</name>{BOX.replace('11', 'nan')}</object>", "bndbox has xmax 'nan'"),
        (f"<object><name>cat</name>{BOX.replace('<xmax>11</xmax>', '')}</object>", "xmax None"),
        (f"<object><name>cat</name><difficult>2</difficult>{BOX}</object>", "difficult is '2'"),
        ("<object><name>cat</name><polygon><x1>1</x1></polygon></object>", "polygon has 1 x"),
        ("<object>", "cannot be read as XML"),
        ("&lt", "cannot be read as XML"),
    ],
)
def test_a_bad_object_is_an_error_that_names_it(folder, objects, message):
    root = folder(objects)
    with pytest.raises(DataError) as error:
        read(voc_folder.find, root)
    assert message in str(error.value) and "a.xml" in str(error.value)
    skipped = read(voc_folder.find, root, on_error="skip")
    assert not any(image.objects for image in skipped.images)


def test_entities_are_refused_before_they_are_expanded(folder):
    root = folder("")
    bomb = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
    text = f'<!DOCTYPE x [<!ENTITY a0 "lol">{bomb}]><annotation>&a11;</annotation>'
    (root / "a.xml").write_text(text)
    with pytest.raises(DataError, match="a DOCTYPE is not allowed"):
        read(voc_folder.find, root)


def test_utf_16_and_a_byte_order_mark_are_read(folder):
    root = folder(f"<object><name>größe 猫</name>{BOX}</object>")
    text = (root / "a.xml").read_text(encoding="utf-8")
    for encoding in ("utf-16", "utf-8-sig"):
        (root / "a.xml").write_bytes(text.encode(encoding))
        assert read(voc_folder.find, root).images[0].objects[0].class_name == "größe 猫"


def test_class_names_come_from_their_file_and_others_are_errors(folder):
    root = folder(f"<object><name>dog</name>{BOX}</object>")
    (root / "classes.txt").write_text("dog\ncat\n")
    assert read(voc_folder.find, root).class_names == ("dog", "cat")
    (root / "classes.txt").write_text("cat\n")
    with pytest.raises(DataError, match=r"the class is 'dog'; .* add it to the list of classes"):
        read(voc_folder.find, root)
    (root / "classes.txt").unlink()
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ndog:1,2,3::\n"
    )
    assert read(voc_folder.find, root).class_names == ("dog",)


@pytest.mark.parametrize(
    "kind, attributes, box, rotated",
    [
        ("bounding_box", "occluded=no, rotation=90.0", (25, 5, 30, 40), 1),
        ("bounding_box", "rotation=0.0", (20, 10, 40, 30), 0),
        ("bounding_box", "old_rotation=90, rotation=left", (20, 10, 40, 30), 0),
        ("", "rotation=90.0", (20, 10, 40, 30), 0),  # a polygon, whose corners are as drawn
    ],
)
def test_datumaro_rotates_rectangles_in_labelme_xml_about_their_center(
    folder, kind, attributes, box, rotated
):
    corners = (20, 10), (60, 10), (60, 40), (20, 40)
    points = "".join(f"<pt><x>{x:.2f}</x><y>{y:.2f}</y></pt>" for x, y in corners)
    root = folder(
        f"<object><name>cat</name><type>{kind}</type><polygon>{points}<username/></polygon>"
        f"<attributes>{attributes}</attributes></object>"
    )
    content = read(voc_folder.find, root)
    assert content.images[0].objects[0].box == pytest.approx(box)
    assert reasons(content).get(voc_xml_reader.ROTATED, 0) == rotated


names = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1).map(str.strip)
corners = st.floats(0, 1000).map(lambda x: round(x, 3))
many = st.lists(st.builds(Box, names.filter(bool), corners, corners, corners, corners), max_size=4)


@settings(max_examples=30, deadline=None)
@given(many)
def test_boxes_and_names_come_back(tmp_path_factory, written):
    root = tmp_path_factory.mktemp("voc")
    image = Annotated("a.png", 64, 48, tuple(written))
    write_voc_beside(root, {"train": [image]})
    found = boxes(read(voc_folder.find, root))["a.png"]
    for one, other in zip(found, written, strict=True):
        assert one[0] == other.name and one[1:] == pytest.approx(other[1:], abs=1e-9)


def test_files_written_by_datumaro_read_back_equal(tmp_path):
    dm = pytest.importorskip("datumaro")
    items = []
    for split, images in SMALL.items():
        for image in images:
            path = write_image(tmp_path / "in", image)
            found = [
                dm.Bbox(b.x, b.y, b.width, b.height, label=("cat", "dog").index(b.name))
                for b in image.boxes
            ]
            media, stem = dm.Image.from_file(path=str(path)), path.stem
            items.append(dm.DatasetItem(stem, subset=split, media=media, annotations=found))
    dataset = dm.Dataset.from_iterable(items, categories=["cat", "dog"])
    dataset.export(str(tmp_path / "out"), "voc_detection", save_media=True)
    for split in SMALL:
        content = read(voc_folder.find, tmp_path / "out", split)
        found = {Path(name).stem: objects for name, objects in boxes(content).items()}
        wanted = {Path(name).stem: objects for name, objects in expected(SMALL, split).items()}
        assert found == wanted and content.class_names == ("cat", "dog")
        assert all(image.path.is_file() for image in content.images)
