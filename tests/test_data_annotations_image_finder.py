"""Images that tables name: folders of other machines, copies of HEIC files, many of one name."""

import json
import shutil
import time

import pytest
from layout_writers import Annotated, Box, coco_json, write_image

from retinanet_jax.data.annotations import image_finder
from retinanet_jax.data.annotations.folder_parts import ImageNames
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.folder import FolderSettings, load_index


@pytest.fixture
def root(tmp_path):
    """A function that makes files."""

    def make(*names: str):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(name, encoding="utf-8")
        return tmp_path

    return make


def finder(root, *bases: str, split: str = "", stated=()):
    places = [root / base for base in bases or [""]]
    return image_finder.ImageFinder(root, split, places, lambda: iter(stated))


def missing(found, name: str) -> bool:
    """Whether no image is found, and an image of the same name is refused."""
    with pytest.raises(DataError, match=r"is missing; .*; add the image"):
        found.find(name, "x", "")
    return True


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


@pytest.mark.parametrize(
    "train, val",
    [
        ("train", "validate"),
        ("train_images", "val_images"),
        ("imgs/train_set/x", "imgs/dev_set/x"),
        ("train2017-zip/data", "val2017-zip/data"),
        ("TrainImages", "ValImages"),
    ],
)
def test_an_image_is_not_taken_from_the_folder_of_another_split(root, train, val):
    folder = root(*(f"{place}/a.jpg" for place in (train, val)), f"{val}/b.jpg", "trainval/c.jpg")
    for split, place in (("train", train), ("val_1", val)):
        found = finder(folder, split=split)
        assert found.find("a.jpg", "x", "") == str(folder / place / "a.jpg")
        assert found.exists(found.find("c.jpg", "x", ""))  # of a folder of both
    assert found.exists(found.find("b.jpg", "x", ""))
    with pytest.raises(DataError, match=rf"'b\.jpg' is missing; {val}/b\.jpg is of another split"):
        finder(folder, split="train").find("b.jpg", "x", "")
    assert found.notes == [
        (image_finder.OTHER_FOLDER, str(folder / name))
        for name in (f"{val}/a.jpg", "trainval/c.jpg", f"{val}/b.jpg")
    ]


def test_an_archive_that_may_have_the_images_of_a_split_is_named(root):
    folder = root("train_images/a.jpg", "val_images.zip")
    with pytest.raises(DataError, match=r"add the image, or extract val_images\.zip, or rename"):
        finder(folder, split="val").find("a.jpg", "x", "")


@pytest.mark.parametrize("before", ["", "/home/me/data/", "C:\\data\\", "s3://bucket/"])
def test_an_image_of_another_folder_is_not_taken_where_folders_fit(root, before):
    folder = root(
        "images/cam1/0.jpg", "images/cam1/1.jpg", "images/Cam 2/2.jpg", "images/cam4/3.jpg"
    )
    stated = [
        f"{before}{name}" for name in ("cam3/1.jpg", "cam 2/2.jpg", "cam5/3.jpg", "cam1/0.jpg")
    ]
    others = [None, ["a"], {}, "", " "]  # names as a broken file may have them
    for names in (stated, stated[::-1]):
        found = finder(folder, "", "images", stated=[*others, *names])
        assert missing(found, stated[0]) and missing(found, stated[2])
        assert found.find(stated[3], "x", "") == str(folder / "images/cam1/0.jpg")
        assert found.find(stated[1], "x", "") == str(folder / "images/Cam 2/2.jpg")
    # Names of which none fits its folder are those of a machine on which the folder was another.
    found = finder(folder, "", "images", stated=stated[::2])
    assert found.find(stated[0], "x", "") == str(folder / "images/cam1/1.jpg")
    assert found.notes == [(image_finder.OTHER_FOLDER, str(folder / "images/cam1/1.jpg"))]


def test_a_name_with_more_folders_than_there_are_is_found_beside_others(root):
    folder = root("images/a.jpg", "images/b.jpg")
    found = finder(folder, stated=["images/a.jpg", "dataset/images/b.jpg"])
    assert found.find("dataset/images/b.jpg", "x", "") == str(folder / "images/b.jpg")


SPELLINGS = [
    *[("a.jpg", "a.JPG"), ("Img 1.PNG", "img 1.png"), ("B\u00e4r.jpg", "Ba\u0308r.jpg")],
    ("Images/a.jpg", "images/A.jpg"),
]


@pytest.mark.parametrize("place", [".", "images", "pictures/x"])
@pytest.mark.parametrize("stated, file", SPELLINGS)
def test_the_one_file_of_a_similar_name_is_taken_in_any_folder(root, stated, file, place):
    folder = root(f"{place}/{file}", "other.jpg")
    found = finder(folder, "", "images", stated=[stated])
    path = str(folder / place / file)
    assert found.find(stated, "x", "") == path
    reasons = [image_finder.OTHER_FOLDER] * (place == "pictures/x") + [image_finder.SIMILAR]
    assert found.notes == [(reason, path) for reason in reasons]
    # A file that another entry names is its own, and one of the name itself goes first.
    found = finder(folder, "", "images", stated=[stated, f"{place}/{file}"])
    assert not found.exists(found.find(stated, "x", "")) and not found.notes
    root(f"{place}/{stated}")
    found = finder(folder, "", "images", stated=[stated])
    assert found.find(stated, "x", "") == str(folder / place / stated)
    assert image_finder.SIMILAR not in dict(found.notes)


def test_two_files_of_similar_names_are_ambiguous(root):
    found = finder(root("a.JPG", "A.jpg"), stated=["a.jpg"])
    with pytest.raises(DataError, match=r"'a\.jpg' may mean A\.jpg, a\.JPG; write the name as it"):
        found.find("a.jpg", "x", "")


def test_a_name_that_a_thousand_images_have_takes_no_time(root):
    folder = root(*(f"images/v{number}/f.jpg" for number in range(1000)))
    for split in ("", "train"):
        found = finder(folder, split=split)
        start = time.process_time()
        for number in range(1000):
            path = found.find(f"/data/v{number}/f.jpg", "x", "")
            assert path == str(folder / f"images/v{number}/f.jpg")
        assert time.process_time() - start < 1


def split_file(layout: str, split: str, left: int, names: list[str]) -> tuple[str, str]:
    """An annotation file of a split and its text: a box at `left` in each image."""
    images = [Annotated(name, 64, 48, (Box("cat", left, 6, 20, 12),)) for name in names]
    if layout == "coco":
        return f"{split}.json", json.dumps(coco_json(images, ["cat"]))
    rows = (f"{image.file_name},{left},6,{left + 20},18,cat" for image in images)
    return f"{split}.csv", "\n".join(["filename,xmin,ymin,xmax,ymax,label", *rows])


@pytest.mark.parametrize("layout", ["coco", "csv"])
def test_labels_are_read_with_the_images_of_their_split(tmp_path, layout):
    root = tmp_path / "data"
    for split, left in (("train", 3), ("val", 9)):
        for name in ("0.png", "1.png"):
            write_image(root / f"{split}_images", Annotated(name, 64, 48))
        file, text = split_file(layout, split, left, ["0.png", "1.png"])
        (root / file).write_text(text)
    settings = FolderSettings(str(root), str(tmp_path / "cache"))
    for wanted, split, left in (("train", "train", 3), ("auto", "val", 9)):
        records = list(load_index(settings, wanted).records())
        assert sorted(r.path for r in records) == [root / f"{split}_images/{n}.png" for n in (0, 1)]
        assert [a.bbox for r in records for a in r.annotations] == [(left, 6, 20, 12)] * 2
    shutil.rmtree(root / "val_images")
    (root / "val_images.zip").touch()
    with pytest.raises(DataError, match=r"'0\.png' is missing; train_images/0\.png is of another"):
        load_index(settings, "auto")
    assert len(list(load_index(settings, "train").records())) == 2


@pytest.mark.parametrize("layout", ["coco", "csv"])
def test_labels_of_a_folder_that_is_not_there_are_an_error(tmp_path, layout):
    root = tmp_path / "data"
    for name in ("0.png", "1.png"):
        write_image(root / "images/cam1", Annotated(name, 64, 48))
    file, text = split_file(layout, "train", 3, ["cam3/1.png", "cam1/0.png"])
    (root / file).write_text(text)
    settings = FolderSettings(str(root), str(tmp_path / "cache"), val_share=0)
    with pytest.raises(DataError, match=r"'cam3/1\.png' is missing; images/cam1/1\.png may be"):
        load_index(settings, "train")
    skipped = load_index(settings._replace(on_error="skip"), "train")
    assert [record.path for record in skipped.records()] == [root / "images/cam1/0.png"]


@pytest.mark.parametrize("layout", ["coco", "csv"])
def test_images_in_another_spelling_beside_their_annotations_are_read(tmp_path, layout):
    root = tmp_path / "data"
    for name in ("0.PNG", "cafe\u0301.png"):
        write_image(root / "pictures", Annotated(name, 64, 48))
    file, text = split_file(layout, "train", 3, ["0.png", "caf\u00e9.png"])
    (root / file).write_text(text)
    index = load_index(FolderSettings(str(root), str(tmp_path / "cache"), val_share=0), "train")
    assert [a.bbox for r in index.records() for a in r.annotations] == [(3, 6, 20, 12)] * 2
    counts = {image_finder.OTHER_FOLDER: 2, image_finder.SIMILAR: 2}
    assert index.report.counts == counts
