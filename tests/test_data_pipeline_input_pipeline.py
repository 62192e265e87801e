"""The streams of batches: pure in (seed, step), every image once, equal for any process count."""

import dataclasses
import gc
import itertools
import json
import logging
import threading
import time
from pathlib import Path

import cv2
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from image_data import ALL_ON, SIZES, SMALL, Images, dataset

from retinanet_jax.data.pipeline import order
from retinanet_jax.data.pipeline.augmentation_config import AugmentationConfig
from retinanet_jax.data.pipeline.batch import Example
from retinanet_jax.data.pipeline.canvas import fitted_sizes, jitter_bound
from retinanet_jax.data.pipeline.input_pipeline import (
    ExampleError,
    PipelineConfig,
    canvas_for,
    canvases,
    eval_batches,
    fit,
    train_batches,
)
from retinanet_jax.data.shapes import ShapesSource

FLIPS = AugmentationConfig()


def taken(count: int, source, **options) -> list:
    defaults = {"batch_size": 4, "seed": 5, "settings": SMALL, "augmentation": FLIPS}
    options = defaults | options
    return list(itertools.islice(train_batches(dataset(source), **options), count))


def assert_equal(ours, theirs) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.image_ids, b.image_ids)
        for name, x, y in zip(a.batch._fields, a.batch, b.batch, strict=True):
            np.testing.assert_array_equal(x, y, err_msg=name)


def test_tight_canvases_keep_the_order_and_pad_as_little_as_the_batch_allows():
    settings = dataclasses.replace(SMALL, eval_canvas="tight", eval_resizing="torchvision")
    batches = list(eval_batches(dataset(Images(7)), batch_size=2, settings=settings))
    ids = np.concatenate([host.image_ids for host in batches])
    np.testing.assert_array_equal(ids, [*range(100, 107), -1])
    for host in batches:
        batch = host.batch
        assert batch.images.dtype == np.float32
        wanted = -(-batch.image_sizes[batch.valid].max(0) // 8) * 8
        np.testing.assert_array_equal(batch.images.shape[1:3], wanted)
    # 80 x 48 and 48 x 80 halved; 30 x 90 by 40 / 90, cut: 13 x 40.
    assert batches[0].batch.images.shape[1:3] == (40, 40)
    np.testing.assert_array_equal(batches[2].batch.image_sizes[0], [13, 40])


@pytest.mark.parametrize("image_sizes, canvas", [(None, (40, 40)), ([(48, 80)], (24, 40))])
def test_one_canvas_holds_every_image_of_the_set(image_sizes, canvas):
    """Portrait, landscape and extreme images; and landscape ones alone."""
    settings = dataclasses.replace(SMALL, train_canvas="one", eval_canvas="one")
    source = Images(10) if image_sizes is None else Images(10, image_sizes)
    batches = taken(20, source, settings=settings, batch_size=1)
    seen = np.concatenate([host.image_ids for host in batches])
    assert sorted(seen.tolist()) == sorted([*range(100, 110)] * 2)
    batches += list(eval_batches(dataset(source), batch_size=1, settings=settings))
    assert {host.batch.images.shape[1:3] for host in batches} == {canvas}


def test_evaluation_fields_are_checked():
    with pytest.raises(
        ValueError, match=r"pipeline.eval_canvas: 'any' is not one of few, one, tight"
    ):
        PipelineConfig(eval_canvas="any")
    with pytest.raises(ValueError, match=r"pipeline.eval_resizing: 'pil' is not one of opencv, "):
        PipelineConfig(eval_resizing="pil")


def test_canvases_are_landscape_portrait_and_square_or_just_one():
    assert canvases(PipelineConfig()) == [(800, 1344), (1344, 800), (1344, 1344)]
    assert canvases(PipelineConfig(min_side=640, max_side=640)) == [(640, 640)]
    assert canvases(PipelineConfig(min_side=600, max_side=610, pad_multiple=128)) == [(640, 640)]
    assert canvas_for([(24, 40), (24, 24)], SMALL) == (24, 40)
    assert canvas_for([(40, 24), (24, 24)], SMALL) == (40, 24)
    assert canvas_for([(40, 24), (24, 40)], SMALL) == (40, 40)
    with pytest.raises(ValueError, match="fit no canvas"):
        canvas_for([(41, 24)], SMALL)


def test_the_stream_does_not_depend_on_threads_or_prefetching():
    one = dataclasses.replace(SMALL, num_threads=1, prefetch=1)
    assert_equal(
        taken(8, Images(30), settings=one),
        taken(8, Images(30), settings=dataclasses.replace(SMALL, num_threads=5, prefetch=3)),
    )


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(st.integers(1, 90), st.integers(1, 12), st.integers(0, 3))
def test_every_epoch_has_every_image_once(images, batch_size, seed):
    plan = order.TrainOrder(Images(images), batch_size, seed, SMALL)
    steps = -(-3 * images // batch_size)
    stream = [row for step in range(steps) for row in plan(step).indices]
    epochs = [row for step in range(steps) for row in plan(step).repeats]
    for epoch in range(3):
        members = [i for i, e in zip(stream, epochs, strict=True) if e == epoch]
        assert sorted(members) == list(range(images))
    # Only within a batch may epochs meet.
    batches = np.reshape(epochs, (steps, batch_size))
    assert (batches[1:].min(1) >= batches[:-1].max(1)).all()


def test_each_epoch_and_each_seed_has_its_own_batches_and_augmentation():
    """60 square images in 15 batches of 4; by chance, hardly any batch has the same four again."""
    square = PipelineConfig(min_side=32, max_side=32, num_threads=2, max_boxes=4)
    source = Images(60, [(40, 40)])
    two_epochs = taken(30, source, settings=square)
    first, second = two_epochs[:15], two_epochs[15:]
    for other in (second, taken(15, source, settings=square, seed=6)):
        compositions = [{frozenset(h.image_ids.tolist()) for h in part} for part in (first, other)]
        assert len(compositions[0] & compositions[1]) < 3
        ours, theirs = (
            {i: f for h in part for i, f in zip(h.image_ids.tolist(), h.batch.flip, strict=True)}
            for part in (first, other)
        )
        assert sorted(ours) == sorted(theirs) == list(range(100, 160))
        assert 15 < sum(ours[i] == theirs[i] for i in ours) < 45  # half are flipped alike


def test_batches_of_a_window_come_in_an_order_of_the_seed():
    square = PipelineConfig(min_side=32, max_side=32, num_threads=2, max_boxes=4)

    def places(seed: int) -> list[int]:
        plan = order.TrainOrder(Images(64, [(40, 40)]), 2, seed, square)
        grouped = plan._shuffled(0)[0].reshape(-1, 2).tolist()
        return [grouped.index(plan(step).indices) for step in range(32)]

    ours, others = places(5), places(6)
    assert sorted(ours) == sorted(others) == list(range(32))
    assert sum(one == other for one, other in zip(ours, others, strict=True)) < 8
    assert sum(one == place for place, one in enumerate(ours)) < 8


def test_an_example_does_not_depend_on_the_batch_it_lands_in():
    """Its pixels, boxes, flip and colours: for any batch size, by epoch and image."""
    found: dict[int, list] = {}
    for rows in (2, 3, 7):
        for host in taken(42 // rows, Images(42), batch_size=rows, augmentation=ALL_ON):
            batch, sizes = host.batch, host.batch.image_sizes.astype(int)
            for row, image_id in enumerate(host.image_ids.tolist()):
                image = batch.images[row, : sizes[row, 0], : sizes[row, 1]]
                rest = (batch.gt_boxes, batch.gt_labels, batch.flip, batch.color)
                found.setdefault(image_id, []).append([image, *(part[row] for part in rest)])
    assert len(found) == 42
    for same in found.values():
        assert len(same) == 3
        for others in zip(*same, strict=True):
            np.testing.assert_array_equal(others[0], others[1])
            np.testing.assert_array_equal(others[0], others[2])


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
    st.lists(st.tuples(*[st.integers(1, 400)] * 2), min_size=1, max_size=40),
    st.integers(1, 9),
    st.sampled_from([(24, 40, 8), (24, 24, 8), (23, 37, 1), (40, 100, 32)]),
)
def test_a_canvas_holds_all_that_its_images_may_become(sizes, batch_size, sides):
    """So that no image is cut, or chosen, by those it happens to be with."""
    settings = PipelineConfig(*sides)
    plan = order.TrainOrder(Images(len(sizes), sizes), batch_size, 0, settings)
    for step in range(6):
        batch = plan(step)
        assert batch.canvas in canvases(settings)
        for index in batch.indices:
            (fitted,) = fitted_sizes([sizes[index]], settings)
            bound = jitter_bound(sizes[index], settings)
            assert (np.array(batch.canvas) >= bound).all() and (np.array(bound) >= fitted).all()


def test_the_last_epochs_have_neither_mosaic_nor_mixup():
    """30 images in batches of 4 and 30 steps, four epochs: from step 19 on, the last 1.5 epochs."""
    mixing = dataclasses.replace(ALL_ON, mosaic=1.0, mixup=0.5, close_mosaic=1.5)
    options = {"batch_size": 4, "seed": 5, "settings": SMALL, "total_steps": 30}
    closing, single, always = (
        train_batches(dataset(Images(30)), augmentation=augmentation, **options)
        for augmentation in (
            mixing,
            dataclasses.replace(mixing, mosaic=0.0, mixup=0.0),
            dataclasses.replace(mixing, close_mosaic=0.0),
        )
    )
    for step in range(30):
        wanted = always if step < 19 else single
        assert_equal([closing[step]], [wanted[step]])
        assert not np.array_equal(always[step].batch.images, single[step].batch.images)
    endless = train_batches(
        dataset(Images(30)), augmentation=mixing, **options | {"total_steps": None}
    )
    assert_equal([endless[29]], [always[29]])


def test_nearly_all_batches_have_a_small_canvas_and_none_loses_its_image():
    plan = order.TrainOrder(Images(2000, [(48, 80), (80, 48)]), 8, 0, SMALL)
    chosen = [plan(step).canvas for step in range(250)]
    assert set(chosen) == set(canvases(SMALL))
    assert chosen.count((40, 40)) <= -(-250 // order.WINDOW_BATCHES)
    # Orientations alternate: a window does not show all of one kind before the other.
    changes = sum(a != b for a, b in itertools.pairwise(chosen))
    assert changes > 50
    for host in taken(20, Images(70)):
        assert host.batch.images.shape[1:3] in canvases(SMALL)
        assert host.batch.images.shape[1:3] == canvas_for(host.batch.image_sizes.astype(int), SMALL)


def test_one_canvas_is_never_grouped():
    square = PipelineConfig(min_side=32, max_side=32)
    plan = order.TrainOrder(Images(500), 8, 0, square)
    wide = [SIZES[i % 7][1] > SIZES[i % 7][0] for step in range(32) for i in plan(step).indices]
    # Four images in seven are wide; grouped ones would come as 0 or 8, a deviation of 4.
    assert np.reshape(wide, (-1, 8)).sum(1).std() < 2.5


def test_evaluation_sees_every_image_once_and_pads_the_last_batch():
    batches = list(eval_batches(dataset(Images(30)), batch_size=4, settings=SMALL))
    assert len(batches) == 8
    ids = np.concatenate([host.image_ids for host in batches])
    assert sorted(ids[ids >= 0]) == list(range(100, 130))
    np.testing.assert_array_equal(batches[-1].batch.valid, [True, True, False, False])
    assert all(host.batch.valid.all() for host in batches[:-1])
    shapes = [host.batch.images.shape[1:3] for host in batches]
    assert shapes.count((40, 40)) <= 1 and shapes[0] == (24, 40) and shapes[-1] == (40, 24)
    for host in batches:
        for image_id, size in zip(host.image_ids, host.batch.original_sizes, strict=True):
            assert image_id < 0 or tuple(size) == SIZES[(image_id - 100) % 7]


def test_evaluation_on_one_canvas_keeps_the_order_and_the_pixels():
    square = PipelineConfig(min_side=64, max_side=64, max_boxes=4)
    source = Images(5, [(64, 64)])
    batches = list(eval_batches(dataset(source), batch_size=2, settings=square))
    np.testing.assert_array_equal(
        np.concatenate([h.image_ids for h in batches]), [100, 101, 102, 103, 104, -1]
    )
    np.testing.assert_array_equal(batches[1].batch.images[1], source[3].image)
    np.testing.assert_array_equal(batches[1].batch.gt_boxes[1, :3], source[3].boxes)


def test_no_image_gives_no_evaluation_batch_and_no_training():
    assert list(eval_batches(dataset(Images(0)), batch_size=4, settings=SMALL)) == []
    with pytest.raises(ValueError, match="images has no images"):
        taken(1, Images(0))


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(st.sampled_from([(0.3, 0.6), (0.5, 2.0), (1.5, 3.0)]), st.integers(0, 50))
def test_jittered_images_and_boxes_stay_inside(jitter, seed):
    augmentation = dataclasses.replace(ALL_ON, scale_jitter=jitter)
    for host in taken(3, Images(21), augmentation=augmentation, seed=seed):
        batch = host.batch
        assert batch.images.shape[1:3] in canvases(SMALL)
        real = batch.gt_labels >= 0
        limit = np.broadcast_to(batch.image_sizes[:, None, ::-1], (*real.shape, 2))[real]
        assert (batch.gt_boxes[real] >= 0).all()
        assert (batch.gt_boxes[real][:, 2:] <= limit + 1e-3).all()


class Broken(Images):
    def __getitem__(self, index: int) -> Example:
        if index == 3:
            raise FileNotFoundError("cells/0003.jpg is gone")
        return super().__getitem__(index)


def test_a_failing_example_is_named():
    with pytest.raises(ExampleError, match=r"images, example 3 \(image id 103\).*0003.jpg"):
        taken(8, Broken(20))
    with pytest.raises(ExampleError, match="image id 103"):
        list(eval_batches(dataset(Broken(20)), batch_size=4, settings=SMALL))
    # It need not be the mosaic's own image.
    with pytest.raises(ExampleError, match=r"^dataset images, example 3 \(image id 103\)"):
        taken(8, Broken(20), augmentation=AugmentationConfig(mosaic=1.0), seed=6)


def test_an_image_of_another_size_is_named():
    class Resized(Images):
        def __getitem__(self, index: int) -> Example:
            return super().__getitem__(index)._replace(image=np.zeros((8, 8, 3), np.uint8))

    with pytest.raises(ExampleError, match=r"image id 1\d\d.*\(8, 8\).*source states \(\d+, \d+\)"):
        taken(1, Resized(20))


def test_an_evaluation_does_not_warn_of_boxes_that_it_does_not_use(caplog):
    settings = dataclasses.replace(SMALL, max_boxes=1)
    with caplog.at_level(logging.WARNING):
        list(eval_batches(dataset(Images(32)), batch_size=4, settings=settings))
    assert not any("max_boxes" in record.getMessage() for record in caplog.records)


def test_boxes_beyond_max_boxes_are_said_once(caplog):
    with caplog.at_level(logging.WARNING):
        taken(8, Images(32), settings=dataclasses.replace(SMALL, max_boxes=1))
    assert sum("max_boxes" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_side": 0}, "pipeline.min_side: 0 must be at least 1"),
        ({"max_side": 700}, "pipeline.max_side: 700 must be at least min_side"),
        ({"num_threads": -1}, "pipeline.num_threads"),
        ({"process_index": 1}, "pipeline.process_index: 1 must be from 0"),
    ],
)
def test_impossible_settings_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        PipelineConfig(**fields)


def test_rows_that_processes_cannot_share_are_an_error():
    three = dataclasses.replace(SMALL, process_count=3)
    with pytest.raises(ValueError, match="batch_size: 4 must be a positive multiple of 3"):
        taken(1, Images(9), settings=three)
    with pytest.raises(ValueError, match="batch_size: 0"):
        eval_batches(dataset(Images(9)), batch_size=0, settings=SMALL)
    with pytest.raises(ValueError, match="seed -1"):
        taken(1, Images(9), seed=-1)


def test_the_shapes_dataset_streams():
    source = ShapesSource(num_images=40, image_size=(64, 64), seed=2)
    settings = PipelineConfig(min_side=64, max_side=64, max_boxes=8)
    (host,) = taken(1, source, settings=settings)
    example = source[int(host.image_ids[0])]
    np.testing.assert_array_equal(host.batch.images[0], example.image)


class Photographs:
    """The blood cells, read in the plainest way."""

    def __init__(self, folder: Path):
        (path, *_) = sorted(folder.glob("annotations/*.json"))
        content = json.loads(path.read_text())
        self._images = content["images"]
        files = {file.name: file for file in folder.glob("images/**/*.jpg")}
        self._files = [files[Path(image["file_name"]).name] for image in self._images]
        self._annotations = {image["id"]: [] for image in self._images}
        for annotation in content["annotations"]:
            self._annotations[annotation["image_id"]].append(annotation)

    def __len__(self) -> int:
        return len(self._images)

    def image_size(self, index: int) -> tuple[int, int]:
        return self._images[index]["height"], self._images[index]["width"]

    def __getitem__(self, index: int) -> Example:
        found = self._annotations[self._images[index]["id"]]
        boxes = np.array([a["bbox"] for a in found], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array([a["category_id"] for a in found], np.int32)
        image = np.ascontiguousarray(cv2.imread(str(self._files[index]))[..., ::-1])
        crowd = np.zeros(len(found), bool)
        areas = np.array([a["area"] for a in found], np.float64)
        return Example(image, boxes, labels, crowd, areas, self._images[index]["id"])


def test_photographs_stream_with_their_boxes(shared_dir):
    source = Photographs(shared_dir / "data" / "bccd_320")
    settings = PipelineConfig(min_side=240, max_side=320, max_boxes=40)
    jitter = AugmentationConfig(scale_jitter=(0.8, 1.25))
    for host in taken(3, source, settings=settings, augmentation=jitter):
        batch = host.batch
        assert batch.images.shape[1:3] in canvases(settings)
        assert (batch.gt_labels >= 0).sum() > 10
        assert batch.images.mean() > 60


def test_fit_is_what_evaluation_does():
    fitted = fit(Images(7)[0], SMALL)
    assert fitted.image.shape == (24, 40, 3) and fitted.original_size == (48, 80)


def test_a_stream_that_is_given_up_leaves_no_thread():
    # These threads and not their number: those of earlier streams may end at any moment.
    before = set(threading.enumerate())
    batches = train_batches(
        dataset(Images(20)), batch_size=4, seed=0, settings=SMALL, augmentation=FLIPS
    )
    stream = iter(batches)
    next(stream)
    started = set(threading.enumerate()) - before
    assert started
    del stream
    deadline = time.monotonic() + 300
    while started & set(threading.enumerate()) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.05)
    assert not started & set(threading.enumerate())
