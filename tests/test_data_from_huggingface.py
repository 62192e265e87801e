"""Datasets of the `datasets` library, built here, as datasets to train on."""

import numpy as np
import pytest
from layout_writers import SMALL, write_image, write_imagefolder
from PIL import Image
from raw_reading import boxes, expected, read

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats import imagefolder
from retinanet_jax.data.from_huggingface import from_huggingface

datasets = pytest.importorskip("datasets", reason="pip install retinanet_jax[datasets]")

NAMES = ["cat", "dog"]


def rows(tmp_path, as_list: bool, box_format: str = "xywh", by_name: bool = False) -> dict:
    found = {"image": [], "objects": []}
    for image in SMALL["train"]:
        found["image"].append(str(write_image(tmp_path, image)))
        corner = box_format == "xyxy"
        bbox = [[b.x, b.y, b.width + corner * b.x, b.height + corner * b.y] for b in image.boxes]
        category = [b.name if by_name else NAMES.index(b.name) for b in image.boxes]
        objects = {"bbox": bbox, "category": category}
        if as_list:
            pairs = zip(bbox, category, strict=True)
            objects = [{"bbox": b, "category": c} for b, c in pairs]
        found["objects"].append(objects)
    return found


def features(as_list: bool, by_name: bool = False):
    category = datasets.Value("string") if by_name else datasets.ClassLabel(names=NAMES)
    bbox = datasets.List(datasets.Value("float32"), length=4)
    if as_list:
        objects = datasets.List({"bbox": bbox, "category": category})
    else:
        objects = {"bbox": datasets.List(bbox), "category": datasets.List(category)}
    return datasets.Features({"image": datasets.Image(), "objects": objects})


@pytest.mark.parametrize("as_list", [True, False])
@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("box_format", ["xywh", "xyxy"])
def test_rows_become_examples(tmp_path, as_list, by_name, box_format):
    table = datasets.Dataset.from_dict(
        rows(tmp_path, as_list, box_format, by_name), features=features(as_list, by_name)
    )
    dataset = from_huggingface(table, box_format=box_format)
    assert dataset.categories.names == ("cat", "dog") and len(dataset.source) == 3
    for index, image in enumerate(SMALL["train"]):
        example = dataset.source[index]
        pixels = np.asarray(table[index]["image"].convert("RGB"))
        np.testing.assert_array_equal(example.image, pixels)
        assert dataset.source.image_size(index) == pixels.shape[:2]
        wanted = [[b.x, b.y, b.x + b.width, b.y + b.height] for b in image.boxes]
        np.testing.assert_array_equal(example.boxes, np.reshape(wanted, (-1, 4)))
        assert example.labels.tolist() == [NAMES.index(b.name) for b in image.boxes]
        assert example.areas.tolist() == [b.width * b.height for b in image.boxes]
        assert not example.crowd.any() and example.image_id == index
    truth = dataset.ground_truth()
    assert [a["bbox"] for a in truth["annotations"]] == [
        [b.x, b.y, b.width, b.height] for image in SMALL["train"] for b in image.boxes
    ]


def test_an_imagefolder_reads_as_by_the_datasets_library(tmp_path):
    write_imagefolder(tmp_path / "folder", SMALL)
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "folder"), cache_dir=str(tmp_path / "cache")
    )
    for split, there in (("train", "train"), ("val", "validation")):
        dataset = from_huggingface(loaded[there])
        ours = boxes(read(imagefolder.find, tmp_path / "folder", split))
        assert ours == expected(SMALL, split)
        for index in range(len(dataset.source)):
            found = dataset.source.annotated(index)
            wanted = list(ours.values())[index]
            assert found.labels.tolist() == [NAMES.index(o[0]) for o in wanted]
            xywh = np.concatenate([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]], 1)
            assert xywh.tolist() == [list(o[1:]) for o in wanted]


def test_errors_name_the_row_and_the_fix(tmp_path):
    content = rows(tmp_path, as_list=True)
    table = datasets.Dataset.from_dict(content, features=features(True))
    with pytest.raises(DataError, match=r"has no column 'img', only image, objects; set image="):
        from_huggingface(table, image="img")
    with pytest.raises(DataError, match="not an Image"):
        from_huggingface(table, image="objects")
    with pytest.raises(DataError, match="it needs bbox and category"):
        from_huggingface(table, objects="image")
    with pytest.raises(ValueError, match="box_format: 'cxcywh' is not one of xywh, xyxy"):
        from_huggingface(table, box_format="cxcywh")
    with pytest.raises(DataError, match=r"pass one, such as dataset\['train'\]"):
        from_huggingface(datasets.DatasetDict({"train": table}))
    with pytest.raises(DataError, match="load it without streaming=True"):
        from_huggingface(table.to_iterable_dataset())
    numbers = datasets.Dataset.from_dict(content).cast_column("image", datasets.Image())
    with pytest.raises(DataError, match="a number without a name; set class_names="):
        from_huggingface(numbers)
    few = from_huggingface(numbers, class_names=["cat"])
    with pytest.raises(DataError, match="row 0: category is 1; use one of 1 classes"):
        few.source[0]
    assert from_huggingface(numbers, class_names=NAMES).source[0].labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    "bbox, box_format, message",
    [
        ([30, 8, 0, 9], "xywh", r"box 1 is \[30.0, 8.0, 30.0, 17.0\]; x1 < x2"),
        ([30, 8, 20, 40], "xyxy", r"box 1 is .*; x1 < x2 and y1 < y2"),
        ([30, 8, 40, 9], "xywh", "box 1, .*, extends beyond its image of 64 x 48; clip it"),
        ([-9, 8, 40, 9], "xywh", "box 1, .*, extends beyond its image"),
    ],
)
def test_an_invalid_box_is_an_error_that_names_its_row(tmp_path, bbox, box_format, message):
    content = rows(tmp_path, as_list=True, box_format=box_format)
    content["objects"][0][1]["bbox"] = bbox
    table = datasets.Dataset.from_dict(content, features=features(True))
    source = from_huggingface(table, box_format=box_format, name="cells").source
    source[1]
    for read_one in (source.__getitem__, source.annotated, source.image_size):
        with pytest.raises(DataError, match=f"cells: row 0: {message}"):
            read_one(0)


def test_images_are_turned_as_by_the_library(tmp_path):
    content = rows(tmp_path, as_list=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    path = tmp_path / "turned.png"
    Image.fromarray(pixels).save(path, exif=exif)
    content["image"][2] = str(path)
    table = datasets.Dataset.from_dict(content, features=features(True))
    source = from_huggingface(table).source
    wanted = np.asarray(table[2]["image"].convert("RGB"))
    np.testing.assert_array_equal(source[2].image, wanted)
    assert wanted.shape[:2] == source.image_size(2) == (40, 30)
