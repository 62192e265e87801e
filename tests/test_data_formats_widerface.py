"""WIDER FACE: numbers of faces, invalid faces, images found in the folders of the splits."""

import pytest
from layout_writers import SMALL, Annotated, datumaro_export, write_image, write_widerface
from raw_reading import boxes, expected, read, reasons

from retinanet_jax.data.annotations import label_lines
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats import widerface
from retinanet_jax.data.formats.find_layout import find_layout

NAME = "0--Parade/0_Parade_marchingband_1_849.jpg"
# x y width height, blur, expression, illumination, invalid, occlusion, pose
FACE = "10 12 20 24 0 0 0 0 2 0 \n"
INVALID = "5 6 7 8 2 0 0 1 0 0 \n"


@pytest.fixture
def folder(tmp_path):
    """A function that writes the text for training, behind the name of one image."""

    def write(text: str):
        for name in (NAME, "0--Parade/b.jpg"):
            write_image(tmp_path / "WIDER_train" / "images", Annotated(name, 64, 48))
        path = tmp_path / "wider_face_split" / "wider_face_train_bbx_gt.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{NAME}\n{text}", encoding="utf-8")
        return tmp_path

    return write


def faces(root, **keywords):
    images = read(widerface.find, root, **keywords).images
    return [(o.class_name, o.box, o.crowd) for image in images for o in image.objects]


def test_the_release_is_read(tmp_path):
    write_widerface(tmp_path, SMALL)
    (tmp_path / "wider_face_split/wider_face_test_filelist.txt").write_text("0--Parade/t.jpg\n")
    (tmp_path / "wider_face_split/readme.txt").write_text("Attached the mappings\n")
    layout = find_layout(tmp_path).layout
    assert (layout.name, layout.tool) == ("widerface", "WIDER FACE")
    assert set(layout.splits) == {"train", "val"}
    for split in SMALL:
        content = read(widerface.find, tmp_path, split)
        assert content.class_names == ("face",) and content.notes == ()
        assert boxes(content) == {
            name: [("face", *box) for _, *box in found]
            for name, found in expected(SMALL, split).items()
        }
        assert all(image.path.is_file() for image in content.images)


def test_invalid_faces_are_ignored_regions(folder):
    assert faces(folder("2\n" + FACE + INVALID)) == [
        ("face", (10, 12, 20, 24), False),
        ("face", (5, 6, 7, 8), True),
    ]


def test_images_of_the_same_name_belong_to_the_split_of_the_file(tmp_path):
    write_widerface(tmp_path, {"train": SMALL["train"], "val": SMALL["train"]})
    for split in ("train", "val"):
        images = read(widerface.find, tmp_path, split).images
        assert {image.path.relative_to(tmp_path).parts[0] for image in images} == {f"WIDER_{split}"}


def test_a_missing_image_is_named_where_it_belongs(folder):
    root = folder("1\n" + FACE)
    (root / "WIDER_train/images" / NAME).unlink()
    image = read(widerface.find, root).images[0]
    assert image.path == root / "WIDER_train/images" / NAME


@pytest.mark.parametrize("zeros", ["0 0 0 0 0 0 0 0 0 0 \n", ""])
def test_an_image_without_faces_has_no_boxes(folder, zeros):
    content = read(widerface.find, folder(f"0\n{zeros}0--Parade/b.jpg\n1\n{FACE}"))
    assert [len(image.objects) for image in content.images] == [0, 1]
    assert content.notes == ()


def test_faces_without_area_are_left_out_and_noted(folder):
    # The release has some of them.
    content = read(widerface.find, folder("2\n" + FACE + "5 6 0 8 0 0 0 0 0 0\n"))
    assert len(content.images[0].objects) == 1
    assert reasons(content) == {label_lines.NO_AREA: 1}
    assert NAME in content.notes[0][1]


@pytest.mark.parametrize("place", [".", "wider_face_annotations/wider_face_split", "annotations"])
def test_the_files_may_be_in_another_folder(folder, place):
    root = folder("1\n" + FACE)
    (root / place).mkdir(parents=True, exist_ok=True)
    name = "wider_face_train_bbx_gt.txt"
    (root / "wider_face_split" / name).rename(root / place / name)
    assert read(widerface.find, root).images[0].path.is_file()


def test_images_in_a_folder_of_the_archive_s_name_twice(folder):
    root = folder("1\n" + FACE)
    (root / "WIDER_train").rename(root / "inner")
    (root / "WIDER_train").mkdir()
    (root / "inner").rename(root / "WIDER_train/WIDER_train")
    assert read(widerface.find, root).images[0].path.is_file()


def test_a_line_may_have_only_a_box(folder):
    assert faces(folder("1\n10 12 20 24\n")) == [("face", (10, 12, 20, 24), False)]


def test_the_classes_and_attributes_of_datumaro(folder):
    lines = "3\n1 2 3 4 2 - - - - True \n1 2 3 4 - - - - - False traffic light\n1 2 3 4 dog\n"
    root = folder(lines + "0--Parade/b.jpg\n")
    assert [(name, crowd) for name, _, crowd in faces(root)] == [
        ("face", True),
        ("traffic light", False),
        ("dog", False),
    ]
    content = read(widerface.find, root)
    assert content.class_names is None and content.images[1].objects == ()
    assert reasons(content) == {widerface.NO_NUMBER: 1}


@pytest.mark.parametrize(
    "text, message",
    [
        ("2\n" + FACE, f"{NAME}: has 1 lines for 2 faces; write one line per face"),
        ("1\n" + FACE + FACE, f"{NAME}: has 2 lines for 1 faces"),
        ("0\n" + FACE, f"{NAME}: has 1 lines for 0 faces"),
        (FACE, f"{NAME}: is followed by '10 12 20 24"),
        ("-1\n", f"{NAME}: is followed by '-1'; write the number of its faces"),
        ("1\n10 12 20 x 0 0 0 0 0 0\n", f"{NAME}: line 3: is '10 12 20 x"),
        ("1\n10 12 20\n", f"{NAME}: line 3: is '10 12 20'; write x y width height"),
        ("1\n10 12 20 24 0.9\n", f"{NAME}: line 3: is '10 12 20 24 0.9'"),
        ("1\n10 12 20 24 0 0 0 2 0 0\n", f"{NAME}: line 3: invalid is 2; write 0, or 1"),
    ],
)
def test_an_error_names_the_image_and_leaves_the_others(folder, text, message):
    root = folder(f"{text}0--Parade/b.jpg\n1\n{FACE}")
    with pytest.raises(DataError) as error:
        read(widerface.find, root)
    assert message in str(error.value) and "wider_face_train_bbx_gt.txt" in str(error.value)
    assert faces(root, on_error="skip") == [("face", (10, 12, 20, 24), False)]


def test_a_list_of_images_is_not_widerface(tmp_path):
    (tmp_path / "train.txt").write_text("images/a.jpg\nimages/b.jpg\n")
    assert widerface.find(tmp_path) is None


def test_files_written_by_datumaro_read_back_equal(tmp_path):
    datumaro_export(tmp_path, SMALL["train"], "wider_face")
    assert boxes(read(widerface.find, tmp_path / "out")) == expected(SMALL)
