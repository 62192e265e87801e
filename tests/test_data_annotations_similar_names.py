"""Names that differ from their files' in upper and lower case or Unicode form."""

import pytest
from data_settings import data_settings
from layout_writers import SMALL, Annotated, write_coco, write_image

from retinanet_jax.data.annotations.raw import RawImage, RawSplit
from retinanet_jax.data.annotations.similar_names import SIMILAR, with_similar_names
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import load_dataset


def taken(folder, *names: str, present=()) -> tuple[list[str], int]:
    """The names of the files that are taken for images, and the number of notes."""
    images = tuple(RawImage(name, folder / name, folder / "x.json", ()) for name in names)
    found = with_similar_names(RawSplit(images), present)
    assert [image.file_name for image in found.images] == list(names)
    assert {reason for reason, _ in found.notes} <= {SIMILAR}
    return [image.path.name for image in found.images], len(found.notes)


@pytest.mark.parametrize(
    "stated, file",
    [("a.jpg", "a.JPG"), ("Img 1.PNG", "img 1.png"), ("B\u00e4r.jpg", "Ba\u0308r.jpg")],
)
def test_the_one_file_of_a_similar_name_is_taken(tmp_path, stated, file):
    (tmp_path / file).touch()
    assert taken(tmp_path, stated) == ([file], 1)
    assert taken(tmp_path, file) == ([file], 0)
    # A file of the name itself goes first, and one that another entry names is its own.
    assert taken(tmp_path, stated, file) == ([stated, file], 0)
    (tmp_path / stated).touch()
    assert taken(tmp_path, stated) == ([stated], 0)


def test_two_files_of_similar_names_leave_the_image_missing(tmp_path):
    for name in ("a.JPG", "A.jpg"):
        (tmp_path / name).touch()
    assert taken(tmp_path, "a.jpg") == (["a.jpg"], 0)


def test_a_folder_of_windows_is_read_and_its_names_are_counted(tmp_path):
    root = tmp_path / "data"
    write_coco(root, SMALL)
    for path in list((root / "images").rglob("*.png")):
        path.rename(path.with_suffix(".PNG"))
    settings = data_settings("folder", root, tmp_path / "cache")
    dataset = load_dataset(settings, "train")
    assert dataset.report.counts == {SIMILAR: len(SMALL["train"])}
    assert len(dataset.source) == len(SMALL["train"]) and "no annotation names" not in dataset.found


def test_an_image_of_the_same_name_in_another_format_is_named(tmp_path):
    root = tmp_path / "data"
    write_coco(root, SMALL)
    (root / "images/train/a.png").unlink()
    write_image(root / "images/train", Annotated("a.jpg", 64, 48))
    settings = data_settings("folder", root, tmp_path / "cache")
    with pytest.raises(DataError, match=r"there is .*images/train/a\.jpg: write this name"):
        load_dataset(settings, "train")
