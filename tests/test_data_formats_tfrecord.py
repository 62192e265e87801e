"""TFRecord files of the Object Detection API: features, label maps, shards, damage."""

import base64
import gzip
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from data_settings import as_array_record, data_settings
from layout_writers import (
    SMALL,
    Annotated,
    Box,
    class_names,
    image_bytes,
    tf_example,
    tf_features,
    write_records,
    write_tfrecord,
    write_yolo,
)
from raw_reading import boxes, expected, read, reasons

from retinanet_jax.data import images as images_lib
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.formats import tfrecord
from retinanet_jax.data.formats.find_layout import find_layout
from retinanet_jax.data.formats.tfrecord_images import REPEATED
from retinanet_jax.data.store.file_facts import FactTable

# tf.train.Example with cat and dog in a.png of 9x6 pixels, and tf.io.TFRecordWriter, of
# TensorFlow 2.21.
BY_TENSORFLOW = base64.b64decode(
    "twEAAAAAAADiMKJkCrQDCmIKDWltYWdlL2VuY29kZWQSUQpPCk2JUE5HDQoaCgAAAA1JSERSAAAACQAAAAYIAgAAAJ6l"
    "I5IAAAAUSURBVHicYzwhZ8OAAzDhkhgAOQDBMAEuh39kCgAAAABJRU5ErkJgggobCg5pbWFnZS9maWxlbmFtZRIJCgcK"
    "BWEucG5nChcKDGltYWdlL2Zvcm1hdBIHCgUKA3BuZwoVCgxpbWFnZS9oZWlnaHQSBRoDCgEGCiYKFmltYWdlL29iamVj"
    "dC9iYm94L3htYXgSDBIKCgg5juM+OY5jPwomChZpbWFnZS9vYmplY3QvYmJveC94bWluEgwSCgoIOY7jPTmOYz4KJgoW"
    "aW1hZ2Uvb2JqZWN0L2Jib3gveW1heBIMEgoKCFVVVT+rqio+CiYKFmltYWdlL29iamVjdC9iYm94L3ltaW4SDBIKCgir"
    "qio+AAAAAAoiChhpbWFnZS9vYmplY3QvY2xhc3MvbGFiZWwSBhoECgIBAgonChdpbWFnZS9vYmplY3QvY2xhc3MvdGV4"
    "dBIMCgoKA2NhdAoDZG9nChQKC2ltYWdlL3dpZHRoEgUaAwoBCVHq1oM="
)
NAMES = class_names(SMALL)
IMAGE = SMALL["train"][0]
MAP = "item {\n  name: 'cat'\n  id: 1\n}\nitem {\n  name: 'dog'\n  id: 2\n}\n"


def features(image=IMAGE, **changes):
    """Those of an image; `changes` by the ends of their names, None leaves a feature out."""
    found = tf_features(image, NAMES)
    for end, values in changes.items():
        names = [n for n in found if n.endswith(f"/{end}")] or [f"image/object/{end}"]
        found |= dict.fromkeys(names, values)
    return {name: values for name, values in found.items() if values is not None}


@pytest.fixture
def folder(tmp_path):
    """A function that writes train.tfrecord of some records, and a label map of some text."""

    def write(*records, label_map=None):
        write_records(tmp_path / "train.tfrecord", [tf_example(record) for record in records])
        if label_map is not None:
            (tmp_path / "label_map.pbtxt").write_text(label_map, encoding="utf-8")
        return tmp_path

    return write


def assert_boxes(content, wanted):
    """Equal on whole pixels, although records have shares of 32 bits."""
    found = boxes(content)
    assert found.keys() == wanted.keys()
    for name, objects in wanted.items():
        assert [o[0] for o in found[name]] == [o[0] for o in objects]
        np.testing.assert_allclose(
            [o[1:] for o in found[name]], [o[1:] for o in objects], rtol=1e-13, atol=1e-12
        )


def test_what_tensorflow_writes_is_read(tmp_path):
    (tmp_path / "train.record").write_bytes(BY_TENSORFLOW)
    content = read(tfrecord.find, tmp_path)
    assert_boxes(content, {"a.png": [("cat", 1, 1, 3, 4), ("dog", 2, 0, 6, 1)]})
    pixels = images_lib.decode(content.images[0].path.read_bytes(), "a.png")
    assert pixels.shape == (6, 9, 3) and (pixels == (200, 30, 60)).all()


def test_splits_and_their_images_are_read(tmp_path):
    write_tfrecord(tmp_path, SMALL)
    layout = tfrecord.find(tmp_path)
    assert set(layout.splits) == {"train", "val"} and layout.tool.startswith("TFRecord")
    for split, images in SMALL.items():
        content = read(tfrecord.find, tmp_path, split)
        assert_boxes(content, expected(SMALL, split))
        assert content.class_names == ("cat", "dog") and content.category_ids == (1, 2)
        for raw, image in zip(content.images, images, strict=True):
            assert raw.path.read_bytes() == image_bytes(image)


@pytest.mark.parametrize(
    "names, splits",
    [
        (["train/Pets.tfrecord", "valid/Pets.tfrecord"], {"train", "valid"}),  # Roboflow
        (["valid/crash-test.tfrecord", "train/crash-test.tfrecord"], {"train", "valid"}),
        (["train.record", "test.record"], {"train", "test"}),
        (["pascal_train.record", "pascal_val.record"], {"train", "val"}),
        (["coco_train.record", "coco_testdev.record"], {"train", "coco_testdev"}),
        (["train.tfrecord-00000-of-00002", "train.tfrecord-00001-of-00002"], {"train"}),
        (["train-00000-of-00001.tfrecord", "val-00000-of-00001.tfrecord"], {"train", "val"}),
        (["default.tfrecord", "label_map.pbtxt"], {"train"}),  # CVAT
        ([f"test {number}.tfrecord" for number in range(30)], {"train"}),  # VoTT
        (["cells.tfrecord", "cells_test.tfrecord"], {"train", "test"}),
    ],
)
def test_names_of_files_and_folders_are_those_of_splits(tmp_path, names, splits):
    for number, name in enumerate(names):
        image = Annotated(f"{number}.png", 64, 48)
        write_records(tmp_path / name, [tf_example(features(image))])
    assert set(tfrecord.find(tmp_path).splits) == splits
    assert find_layout(tmp_path).layout.name == "tfrecord"
    images = [im for split in splits for im in read(tfrecord.find, tmp_path, split).images]
    assert len(images) == len([name for name in names if "record" in name])


def test_one_file_stands_for_all_of_its_shards(tmp_path):
    for number in range(3):
        image = Annotated(f"{number}.png", 64, 48)
        path = tmp_path / f"coco_train.record-{number:05d}-of-00003"
        write_records(path, [tf_example(features(image))])
    write_records(tmp_path / "coco_val.record", [tf_example(features())])
    assert tfrecord.find(path).splits == ("train",)
    assert len(read(tfrecord.find, path).images) == 3
    (tmp_path / "coco_train.record-00001-of-00003").unlink()
    with pytest.raises(DataError, match=r"coco_train\.record-00001-of-00003: does not exist"):
        read(tfrecord.find, tmp_path)
    assert len(read(tfrecord.find, tmp_path, on_error="skip").images) == 2


def test_crowds_difficult_objects_and_groups_are_ignored_regions(folder):
    image = Annotated("a.png", 64, 48, (Box("cat", 4, 6, 20, 12),) * 4)
    marks = {"is_crowd": [1, 0, 0, 0], "difficult": [0, 1, 0, 0], "group_of": [0, 0, 1, 0]}
    root = folder(features(image, **marks, area=[9.0, 8.0, 7.0, 6.0], mask=[b"png"] * 4))
    objects = read(tfrecord.find, root).images[0].objects
    assert [o.crowd for o in objects] == [True, True, True, False]
    assert [o.area for o in objects] == [9, 8, 7, 6]


def test_images_without_objects_and_without_a_size_are_read(folder):
    empty = features(Annotated("b.png", 64, 48))
    empty = {name: v for name, v in empty.items() if not name.startswith("image/object/")}
    content = read(tfrecord.find, folder(features(height=None, width=None), empty))
    assert [len(image.objects) for image in content.images] == [2, 0]
    assert content.images[0].size is None and content.images[0].normalized
    np.testing.assert_allclose(content.images[0].objects[0].box, (4 / 64, 6 / 48, 20 / 64, 12 / 48))


def test_images_have_unique_names(folder):
    images = [Annotated(f"{number}.png", 64, 48) for number in range(5)]
    records = [
        features(images[0], filename=[b"x\\a.png"]),
        features(images[1], filename=[b"/home/me/b.png"]),
        features(images[2], filename=[b"/home/me/b.png"]),
        features(images[3], filename=None) | {"image/source_id": [b"3"]},
        features(images[4], filename=[b""]),
    ]
    content = read(tfrecord.find, folder(*records))
    assert [image.file_name for image in content.images] == [
        "x/a.png",
        "train.tfrecord/record 1/home/me/b.png",
        "train.tfrecord/record 2/home/me/b.png",
        "3",
        "train.tfrecord/record 4",
    ]


def test_a_record_that_is_there_twice_is_left_out(folder):
    content = read(tfrecord.find, folder(features(), features(), features(SMALL["train"][1])))
    assert len(content.images) == 2 and reasons(content) == {REPEATED: 1}


def test_a_record_for_each_box_is_an_error(folder):
    alone = [Annotated("a.png", 64, 48, (box,)) for box in IMAGE.boxes]
    root = folder(*map(features, alone))
    with pytest.raises(DataError, match=r"record 1: has the image of train\.tfrecord: record 0"):
        read(tfrecord.find, root)


def test_a_display_name_is_the_name_of_a_class(folder):
    coco = """# as in mscoco_label_map.pbtxt
        item { name: "/m/01", id: 7, display_name: "cat" }
        item: < id: 3; name: '/m/02' display_name: 'big ' 'dog' keypoints { id: 1 label: 'nose' } >
        item { id: 0 name: 'background' }"""
    root = folder(features(text=[b"cat", b"/m/02"]), label_map=coco)
    content = read(tfrecord.find, root)
    assert content.class_names == ("big dog", "cat") and content.category_ids == (3, 7)
    assert [o.class_name for o in content.images[0].objects] == ["cat", "big dog"]


def test_class_numbers_are_read_by_the_label_map(folder):
    root = folder(features(text=None), label_map=MAP)
    assert [o.class_name for o in read(tfrecord.find, root).images[0].objects] == ["cat", "dog"]
    (root / "label_map.pbtxt").unlink()
    with pytest.raises(
        DataError, match=r"object 0: has the class number 1 but no class text; add the"
    ):
        read(tfrecord.find, root)


def test_texts_that_datumaro_wrote_without_letters_beyond_ascii_are_read(folder):
    label_map = MAP.replace("cat", "câble").replace("dog", "собака")
    root = folder(features(text=[b"cble", b""]), label_map=label_map)
    names = [found.class_name for found in read(tfrecord.find, root).images[0].objects]
    assert names == ["câble", "собака"]


def test_the_label_map_may_be_beside_the_folder_or_named_like_the_file(folder):
    root = folder(features(text=None), label_map=MAP)
    inner = root / "tfrecords"
    inner.mkdir()
    (root / "train.tfrecord").rename(inner / "train.tfrecord")
    found = find_layout(root)
    assert found.place == inner and root / "label_map.pbtxt" in found.layout.folders
    assert len(read(tfrecord.find, inner).images[0].objects) == 2
    (inner / "train_label_map.pbtxt").write_text(MAP.replace("cat", "lynx"))
    (inner / "old_label_map.pbtxt").write_text(MAP)
    assert read(tfrecord.find, inner).class_names == ("lynx", "dog")
    (inner / "train_label_map.pbtxt").rename(inner / "new_label_map.pbtxt")
    with pytest.raises(DataError, match=r"new_label_map\.pbtxt and old_label_map\.pbtxt differ"):
        tfrecord.find(inner)


@pytest.mark.parametrize(
    "text, message",
    [
        ("item { id: 1 name: cat }", "is not a label map"),
        ("item { id: 1 name: 'cat' ", "is not a label map"),
        ("item { name: 'cat' }", "the id of 'cat' is 0; number the classes from 1"),
        ("item { id: 1 }", "name is ''"),
        (MAP + MAP, "the id 1 or the name 'cat' is used twice"),
        (MAP.replace("2", "1"), "the id 1 or the name 'dog' is used twice"),
        ("item { id: 0 name: 'background' }", "has no class"),
    ],
)
def test_an_invalid_label_map_is_an_error(folder, text, message):
    with pytest.raises(DataError) as error:
        read(tfrecord.find, folder(features(), label_map=text))
    assert message in str(error.value) and "label_map.pbtxt" in str(error.value)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"text": [b"cat", b"cow"]}, "record 1: object 1: class 'cow' is not in label_map.pbtxt"),
        ({"text": None, "label": [1, 9]}, "object 1: class number 9 is not in label_map.pbtxt"),
        ({"text": None, "label": None}, "object 0: the class is ''"),
        ({"text": [b"cat"]}, "class/text has 1 values, bbox/xmin has 2"),
        ({"xmax": [0.5]}, "bbox/xmax has 1 values, bbox/xmin has 2"),
        ({"xmin": [0.1, float("nan")]}, "object 1: box is ["),
        ({"xmin": [b"1", b"2"]}, "object 0: box is [b'1'"),
        ({"area": [-1.0, 2.0]}, "object 0: area is -1.0"),
        ({"encoded": [b""]}, "record 1: has no image: image/encoded is empty"),
        ({"encoded": None}, "record 1: has no image/encoded, only 'image/filename'"),
    ],
)
def test_an_invalid_record_is_an_error_that_names_it(folder, changes, message):
    root = folder(features(Annotated("b.png", 64, 48)), features(**changes), label_map=MAP)
    with pytest.raises(DataError) as error:
        read(tfrecord.find, root)
    assert message in str(error.value) and "train.tfrecord: record 1" in str(error.value)
    assert read(tfrecord.find, root, on_error="skip").images[0].file_name == "b.png"


def test_boxes_in_pixels_are_an_error_that_shows_the_unit(folder, tmp_path):
    corners = {"xmin": [4.0, 5.0], "xmax": [24.0, 9.0], "ymin": [6.0, 9.0], "ymax": [18.0, 30.0]}
    settings = data_settings("folder", folder(features(**corners)), tmp_path / "cache", val_share=0)
    wanted = (
        r"box \[4, 6, 24, 18\] lies outside.*\[xmin, ymin, xmax, ymax\] in fractions of the image"
    )
    with pytest.raises(DataError, match=wanted):
        load_dataset(settings, "train")


def test_damage_is_an_error_and_what_is_before_it_is_read(folder):
    root = folder(features(), features(SMALL["train"][1]))
    path = root / "train.tfrecord"
    data = path.read_bytes()
    path.write_bytes(data[:-9])
    with pytest.raises(DataError, match=r"train\.tfrecord: record 1: it is truncated"):
        read(tfrecord.find, root)
    assert len(read(tfrecord.find, root, on_error="skip").images) == 1
    path.write_bytes(data[:12] + b"\xff" * 40 + data[52:])
    with pytest.raises(DataError, match=r"record 0: is not a tf\.train\.Example"):
        read(tfrecord.find, root)
    for name in ("train.tfrecord", "train.record"):
        path = path.rename(root / name)
        path.write_bytes(gzip.compress(data))
        with pytest.raises(DataError, match=r"is compressed \(GZIP\)"):
            read(tfrecord.find, root)


@pytest.mark.parametrize(
    "others, text",
    [("item { id: 1 name: 'car' }", [b"cat", b"dog"]), (MAP.replace("1", "17"), None)],
)
def test_the_label_map_of_another_dataset_around_is_not_used(folder, others, text):
    """As mscoco_label_map.pbtxt in a clone that has the dataset in a folder."""
    root = folder(features(text=text or [b"cat", b"dog"]))
    inner = root / "tfrecords"
    inner.mkdir()
    (root / "train.tfrecord").rename(inner / "train.tfrec")
    (root / "label_map.pbtxt").write_text(others, encoding="utf-8")
    content = read(tfrecord.find, inner)
    assert {o.class_name for o in content.images[0].objects} == {"cat", "dog"}
    assert content.class_names is None and reasons(content) == {tfrecord.FOREIGN: 1}
    # Of the dataset's own folder, it says which classes there are.
    (root / "label_map.pbtxt").rename(inner / "label_map.pbtxt")
    if text:
        with pytest.raises(DataError, match=r"class 'cat' is not in label_map\.pbtxt"):
            read(tfrecord.find, inner)


def test_other_files_are_left_to_other_layouts(tmp_path):
    (tmp_path / "notes.record").write_text("a record of something else", encoding="utf-8")
    assert tfrecord.find(tmp_path) is None
    write_yolo(tmp_path, SMALL)
    write_tfrecord(tmp_path, SMALL)
    assert find_layout(tmp_path).layout.name == "yolo"


def test_datasets_of_tfds_are_left_to_the_command_that_converts_them(folder):
    root = folder(features())
    inner = root / "voc/2007/5.0.0"
    inner.mkdir(parents=True)
    (root / "train.tfrecord").rename(inner / "voc-train.tfrecord-00000-of-00001")
    (inner / "dataset_info.json").write_text("{}")
    for place in (inner, root):
        with pytest.raises(
            DataError,
            match=r"TensorFlow Datasets such as voc-train.* are not read; .*prepare --conv",
        ):
            find_layout(place)


@pytest.fixture
def settings(tmp_path):
    """Twenty-three images to train on."""
    images = [Annotated(f"picture {n}.png", 64, 48, IMAGE.boxes) for n in range(23)]
    write_tfrecord(tmp_path / "data", {"train": images, "val": SMALL["val"]})
    return data_settings("folder", tmp_path / "data", tmp_path / "cache", eval_split="auto")


def test_several_threads_and_another_process_read_the_same_images(settings):
    source = load_dataset(settings, "train").source
    alone = [source[number].image for number in range(len(source))]
    assert len({image.tobytes() for image in alone}) == 23
    copied = pickle.loads(pickle.dumps(source))
    with ThreadPoolExecutor(8) as pool:
        for reader in (source, copied):
            together = list(pool.map(lambda n, r=reader: r[n % 23].image, range(92)))
            for number, image in enumerate(together):
                np.testing.assert_array_equal(image, alone[number % 23])


def test_the_index_is_kept_until_a_file_changes(settings, monkeypatch):
    first = load_dataset(settings, "train").source
    with monkeypatch.context() as patch:
        patch.setattr(tfrecord, "read_records", None)  # a second reading would fail
        again = load_dataset(settings, "train").source
    np.testing.assert_array_equal(again[3].image, first[3].image)
    path = Path(settings.root, "train.tfrecord")
    for count in (5, 4):
        images = [Annotated(f"new {n}.png", 64, 48, IMAGE.boxes) for n in range(count)]
        write_records(path, [tf_example(features(image)) for image in images])
        assert len(load_dataset(settings, "train").source) == count
    (path.parent / "label_map.pbtxt").write_text(MAP.replace("'dog'", "'dog' display_name: 'pup'"))
    assert load_dataset(settings, "train").categories.names == ("cat", "pup")
    # Facts of the first 23 and 5 images are not kept.
    (table,) = Path(settings.cache_dir).rglob("images.npz")
    assert len(FactTable(table)._rows) == 4


def test_a_file_that_is_cut_while_it_is_used_is_an_error_that_names_it(settings):
    source = load_dataset(settings, "train").source
    path = Path(settings.root, "train.tfrecord")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"train\.tfrecord/bytes \d+-\d+: is truncated"):
        for number in range(23):
            source[number]


def test_the_folder_is_written_as_array_record(settings, tmp_path):
    source = load_dataset(settings, "train").source
    prepared = as_array_record(settings.root, "train", tmp_path / "prepared")
    written = load_dataset(data_settings("folder", prepared, tmp_path / "cache"), "train").source
    images = {source.image_id(n): source[n].image for n in range(len(source))}
    assert len(written) == 23
    for number in range(23):
        example = written[number]
        np.testing.assert_array_equal(example.image, images[example.image_id])
