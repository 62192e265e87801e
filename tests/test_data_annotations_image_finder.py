"""Images that tables name: folders of other machines, copies of HEIC files, many of one name."""

import shutil
import time

import pytest

from retinanet_jax.data.annotations import image_finder
from retinanet_jax.data.annotations.folder_parts import ImageNames
from retinanet_jax.data.data_errors import DataError


@pytest.fixture
def root(tmp_path):
    """A function that makes files."""

    def make(*names: str):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(name, encoding="utf-8")
        return tmp_path

    return make


def finder(root, *bases: str, split: str = ""):
    return image_finder.ImageFinder(root, split, [root / base for base in bases or [""]])


def test_a_heic_file_with_a_copy_is_found_by_its_full_name_alone(root):
    folder = root("images/a.HEIC", "images/a.jpg", "images/b.heic")
    names = ImageNames(folder)
    assert names.names == {"images/a.HEIC", "images/a.jpg", "images/b.heic"}
    assert names.by_stem == {"images/a": ["images/a.jpg"], "images/b": ["images/b.heic"]}
    assert names.only("images/a", "x") == str(folder / "images/a.jpg")
    found = finder(folder)
    stated = {
        **{"a.HEIC": "a.HEIC", "images/a.HEIC": "a.HEIC", "/home/me/a.HEIC": "a.HEIC"},
        **{"a.jpg": "a.jpg", "a": "a.jpg", "images/a": "a.jpg", "b": "b.heic"},
    }
    for name, wanted in stated.items():
        path = found.find(name, "x.json", "")
        assert path == str(folder / "images" / wanted) and found.exists(path)


def test_an_image_is_missing_in_the_first_folder_that_is_there(root):
    folder = root("a.jpg", "images/b.jpg")
    assert finder(folder, "data/train", "images", "").find("c.jpg", "x", "") == str(
        folder / "images/c.jpg"
    )
    assert finder(folder, "data", "pictures").find("c.jpg", "x", "") == str(folder / "data/c.jpg")


def test_a_folder_that_is_in_another_one_decides_between_images_of_one_name(root):
    folder = root("bdd/images/100k/train/a.jpg", "bdd/images/10k/train/a.jpg")
    found = finder(folder, "images/100k/train", "", split="train")
    assert found.find("a.jpg", "x", "") == str(folder / "bdd/images/100k/train/a.jpg")
    with pytest.raises(DataError, match=r"may mean bdd/images/100k/train/a\.jpg, bdd/images/10k"):
        finder(folder, "images", split="train").find("a.jpg", "x", "")


def test_the_folders_at_the_end_of_a_name_choose_among_images_of_one_name(root):
    folder = root("v1/left/a.jpg", "v2/left/a.jpg", "v2/right/a.jpg")
    found = finder(folder)
    assert found.find("/data/v2/left/a.jpg", "x", "") == str(folder / "v2/left/a.jpg")
    with pytest.raises(DataError, match=r"may mean v1/left/a\.jpg, v2/left/a\.jpg"):
        found.find("/data/left/a.jpg", "x", "")
    folder = root("train/b.jpg", "val/b.jpg")
    assert finder(folder, split="val2017").find("b.jpg", "x", "") == str(folder / "val/b.jpg")


def test_of_copies_of_an_image_the_first_is_taken(root):
    folder = root("a/1.jpg", "b/1.jpg")
    with pytest.raises(DataError, match=r"'1\.jpg' may mean a/1\.jpg, b/1\.jpg; write the name"):
        finder(folder).find("1.jpg", "x", "")
    shutil.copy(folder / "a/1.jpg", folder / "b/1.jpg")
    assert finder(folder).find("1.jpg", "x", "") == str(folder / "a/1.jpg")


def test_an_image_is_not_taken_from_the_folder_of_another_split(root):
    folder = root("validate/a.jpg", "trainval/b.jpg")
    for split in ("train", "val"):
        found = finder(folder, split=split)
        assert found.exists(found.find("a.jpg", "x", "")) == (split == "val")
        assert found.exists(found.find("b.jpg", "x", ""))  # of a folder of both


def test_a_name_that_a_thousand_images_have_takes_no_time(root):
    folder = root(*(f"images/v{number}/f.jpg" for number in range(1000)))
    for split in ("", "train"):
        found = finder(folder, split=split)
        start = time.process_time()
        for number in range(1000):
            path = found.find(f"/data/v{number}/f.jpg", "x", "")
            assert path == str(folder / f"images/v{number}/f.jpg")
        assert time.process_time() - start < 1
