"""Exports of real tools, one peculiarity each (../shared/cases), and images of every kind.

A folder that "trains" is read, and its training and evaluation batches are made.
"""

from pathlib import Path

import numpy as np
import pytest
from data_settings import data_settings

from retinanet_jax.data.annotations.image_finder import SIMILAR
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.pipeline.augmentation_config import AugmentationConfig
from retinanet_jax.data.pipeline.input_pipeline import PipelineConfig, eval_batches, train_batches
from retinanet_jax.training.run_checks import check_has_objects

PIPELINE = PipelineConfig(min_side=64, max_side=96, pad_multiple=32, num_threads=1)


@pytest.fixture
def load(shared_dir, tmp_path):
    """Loads both splits of a case."""

    def load_case(name, **fields):
        root = shared_dir / "cases" / name
        if not root.is_dir():
            pytest.skip(f"{root} is not there")
        settings = data_settings("folder", root, tmp_path, eval_split="auto", **fields)
        return load_dataset(settings, "train"), load_dataset(settings, "auto")

    return load_case


def check_trains(train, evaluated) -> None:
    check_has_objects(train)
    assert train.categories == evaluated.categories
    batches = train_batches(
        train, batch_size=2, seed=0, settings=PIPELINE, augmentation=AugmentationConfig()
    )
    for step in range(3):
        batch = batches[step].batch
        kept = batch.gt_boxes[batch.gt_labels >= 0]
        assert np.isfinite(kept).all() and (kept[:, 2:] > kept[:, :2]).all()
    ids = [i for host in eval_batches(evaluated, batch_size=2, settings=PIPELINE)
           for i in host.image_ids.tolist() if i >= 0]  # fmt: skip
    truth = evaluated.ground_truth()
    assert sorted(ids) == sorted(image["id"] for image in truth["images"])


@pytest.mark.parametrize(
    "name, reason",
    [
        ("base", None),
        ("root-category-same-name", "root category without boxes, left out"),
        ("same-category-repeated", "category listed again"),
        ("string-refs", "number written as text"),
        ("string-boxes", "number written as text"),
        ("float-image-ids", "whole number written as a decimal"),
        ("no-annotation-ids", None),
        ("segmentation-only", "no bbox, bounding box of the polygon or mask used"),
        ("category-order", None),
        ("val-lacks-a-category", None),
        ("backslashes", "file name that includes its folder|file name with"),
        ("border", "box partly outside, clipped"),
        ("names", None),
        ("odd-sizes", None),
        ("xyxy-boxes", "box partly outside, clipped|more than half of the boxes extend"),
        ("exif-180", "EXIF orientation applied"),
    ],
)
def test_it_trains_and_counts(load, name, reason):
    train, evaluated = load(name)
    check_trains(train, evaluated)
    found = "\n".join(train.report.counts)
    if reason is None:
        assert not train.report.total
    else:
        assert all(word.startswith(tuple(reason.split("|"))) for word in found.splitlines())
        assert found and reason.split("|")[-1] in found


def test_the_boxes_are_those_of_the_base(load):
    """Where an export states the same boxes otherwise, the same boxes are read."""
    expected, _ = load("base")
    boxes = {expected.source.image_id(i): expected.source[i] for i in range(6)}
    for name in ("root-category-same-name", "same-category-repeated", "string-refs",
                 "string-boxes", "float-image-ids", "no-annotation-ids", "segmentation-only",
                 "category-order"):  # fmt: skip
        for dataset in load(name)[:1]:
            assert dataset.categories.names == expected.categories.names, name
            for i in range(6):
                example = dataset.source[i]
                other = boxes[example.image_id]
                np.testing.assert_allclose(example.boxes, other.boxes, atol=1e-4, err_msg=name)
                np.testing.assert_array_equal(example.labels, other.labels)


def test_boxes_of_an_image_shown_upside_down_fit_its_objects(load):
    """The photograph is stored upside down; the boxes are those of the base."""
    (train, _), (base, _) = load("exif-180"), load("base")
    assert train.report.counts
    for dataset in (train, base):
        assert len(dataset.source) == 6
    originals = {base.source.image_id(i): base.source[i] for i in range(6)}
    for i in range(6):
        example = train.source[i]
        other = originals[example.image_id]
        np.testing.assert_array_equal(example.boxes, other.boxes)
        difference = np.abs(example.image.astype(int) - other.image.astype(int)).mean()
        assert difference < 10, difference  # encoded anew


@pytest.mark.parametrize(
    "name, message",
    [
        ("normalised-boxes", "is in fractions of the image, not in pixels"),
        ("zero-boxes", r"annotation id 9001: .*(without area|width 0).*"),
    ],
)
def test_strict_stops_with_the_reason(load, name, message):
    with pytest.raises(DataError, match=rf"(?s){message}"):
        load(name)


def test_a_suffix_in_upper_case_is_noted(load):
    train, evaluated = load("suffix-case")
    check_trains(train, evaluated)
    assert train.report.counts[SIMILAR]


def test_zero_boxes_are_skipped_and_counted(load):
    train, evaluated = load("zero-boxes", on_error="skip")
    check_trains(train, evaluated)
    assert train.report.total == 3


@pytest.mark.parametrize("name", ["normalised-boxes", "train-only-empty"])
def test_nothing_to_learn_stops_in_skip_too(load, name):
    with pytest.raises(DataError, match="has an object"):
        check_has_objects(load(name, on_error="skip")[0])


def test_corners_are_reported(load):
    train, _ = load("xyxy-boxes")
    assert "they look like x1, y1, x2, y2" in train.notes


def test_images_of_every_kind_are_decoded_or_are_errors(shared_dir):
    from retinanet_jax.data import images

    folder = shared_dir / "cases/images"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    bad = set()
    for path in sorted(folder.iterdir()):
        try:
            assert images.decode(images.read_file(path), path.name).ndim == 3
        except DataError as error:
            assert path.name in str(error)
            bad.add(path.name)
    assert bad == {"half.jpg", "empty.jpg", "text.jpg", "float.tiff"}


def test_layouts_of_real_exports_are_found(shared_dir, tmp_path):
    root = shared_dir / "layouts"
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    for name, images, classes, line in (
        ("roboflow_coco", 30, ("Rei-plush",), "COCO JSON as exported by Roboflow"),
        ("voc_xml", None, 4, "Pascal VOC XML beside the images"),
    ):
        settings = data_settings("folder", root / name, tmp_path, eval_split="auto")
        train, evaluated = load_dataset(settings, "train"), load_dataset(settings, "auto")
        check_trains(train, evaluated)
        assert line in train.found
        if images:
            assert len(train.source) + len(evaluated.source) == images
            assert train.categories.names == classes
        else:
            assert train.categories.num_classes == classes
            paths = [Path(p).parent.name for p in ("train/x", "test/x")]
            assert paths == ["train", "test"] and "splits on disk: " in train.found
