"""One dataset in the layouts of all tools: the same records, and the same batches bit by bit."""

import numpy as np
import pytest
from data_settings import data_settings
from layout_writers import WRITERS, Annotated, Box

from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.pipeline.augmentation_config import AugmentationConfig
from retinanet_jax.data.pipeline.input_pipeline import PipelineConfig, eval_batches, train_batches

PIPELINE = PipelineConfig(min_side=48, max_side=64, pad_multiple=16, num_threads=1)
NAMES = ("cat", "dog", "traffic light")


def splits():
    """Twelve images with one to three boxes on whole pixels, and an empty one."""
    rng = np.random.default_rng(5)
    found = {"train": [], "val": []}
    for number in range(12):
        width, height = ((64, 48), (48, 64), (64, 64))[number % 3]
        boxes = []
        for _ in range(1 + number % 3):
            x, y = (int(v) for v in rng.integers(0, 30, 2))
            boxes.append(Box(str(rng.choice(NAMES)), x, y, *map(int, rng.integers(8, 18, 2))))
        name = f"image {number:03d}.png"
        found["train" if number < 8 else "val"].append(Annotated(name, width, height, tuple(boxes)))
    return found


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """The dataset in one layout."""

    def load_layout(name):
        root = tmp_path_factory.mktemp(name)
        WRITERS[name](root / "data", splits())
        settings = data_settings("folder", root / "data", root / "cache", eval_split="auto")
        return load_dataset(settings, "train"), load_dataset(settings, "auto")

    return load_layout


@pytest.fixture(scope="module")
def expected(load):
    return load("coco")


def stream(train, evaluated):
    """Training batches of three epochs with all augmentation, and all evaluation batches."""
    augmentation = AugmentationConfig(
        scale_jitter=(0.6, 1.6), crop=(0.5, 1.0), mosaic=0.3, hue=0.1, contrast=0.2
    )
    batches = train_batches(
        train, batch_size=4, seed=1, settings=PIPELINE, augmentation=augmentation
    )
    yield from (batches[step] for step in range(7))
    yield from eval_batches(evaluated, batch_size=3, settings=PIPELINE)


# The order of examples depends on the names of the files, and frames of videos have their own.
@pytest.mark.parametrize("name", [name for name in WRITERS if name != "cvat_video"])
def test_batches_are_equal_bit_by_bit(load, expected, name):
    found = load(name)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.categories.names == theirs.categories.names
        assert len(ours.source) == len(theirs.source)
    for ours, theirs in zip(stream(*found), stream(*expected), strict=True):
        np.testing.assert_array_equal(ours.image_ids, theirs.image_ids)
        for field, a, b in zip(ours.batch._fields, ours.batch, theirs.batch, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=field)


@pytest.mark.parametrize("name", WRITERS)
def test_ground_truth_is_equal(load, expected, name):
    def objects(dataset):
        truth = dataset.ground_truth()
        names = {c["id"]: c["name"] for c in truth["categories"]}
        return sorted(
            (a["image_id"], names[a["category_id"]], *np.round(a["bbox"], 4), a["iscrowd"])
            for a in truth["annotations"]
        )

    for ours, theirs in zip(load(name), expected, strict=True):
        assert objects(ours) == objects(theirs)
