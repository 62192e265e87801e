"""Stopped anywhere and taken up by any number of processes, the batches go on exactly."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from image_data import ALL_ON, SMALL, Images, dataset
from rows_of_a_process import BATCH_SIZE, fingerprint, mixture

from retinanet_jax.data.pipeline import order
from retinanet_jax.data.pipeline.input_pipeline import eval_batches, train_batches

HERE = Path(__file__).parent


def shares(settings, count: int):
    """The settings of each of `count` processes."""
    return [
        dataclasses.replace(settings, process_index=index, process_count=count)
        for index in range(count)
    ]


def assert_rows_make_up(parts, whole) -> None:
    """Together, in process order, the rows of the parts are those of the whole batch."""
    ours = jax.tree.map(lambda *rows: np.concatenate(rows), *parts)
    jax.tree.map(np.testing.assert_array_equal, ours, whole)


def batches_of(data, batch_size: int, settings):
    """With every augmentation."""
    return train_batches(
        data, batch_size=batch_size, seed=5, settings=settings, augmentation=ALL_ON
    )


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(
    images=st.integers(1, 40),
    extra=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3)), max_size=2),
    batch_size=st.sampled_from([4, 8]),
    start=st.integers(0, 60),
    count=st.sampled_from([1, 2, 4]),
    threads=st.integers(1, 4),
    prefetch=st.integers(1, 3),
)
def test_resuming_is_exact_from_any_step_on_any_processes(
    images, extra, batch_size, start, count, threads, prefetch
):
    data = mixture([(images, 1), *extra])
    settings = dataclasses.replace(SMALL, num_threads=threads, prefetch=prefetch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "WINDOW_BATCHES", 3)
        # Without the stop: one process, one batch after the other, no thread.
        alone = batches_of(data, batch_size, SMALL)
        streams = [
            batches_of(data, batch_size, mine).iterate(start) for mine in shares(settings, count)
        ]
        for step in range(start, start + 6):
            assert_rows_make_up([next(stream) for stream in streams], alone[step])


def test_resuming_is_exact_in_processes_of_their_own():
    start, steps, count = 7, 9, 2
    batches = batches_of(mixture(), BATCH_SIZE, SMALL)
    wanted = [fingerprint(h) for h in itertools.islice(batches, start + steps)][start:]
    running = [
        subprocess.Popen(
            [
                sys.executable,
                str(HERE / "rows_of_a_process.py"),
                *map(str, (start, steps, i, count)),
            ],
            env={**os.environ, "PYTHONPATH": f"{HERE.parent}:{HERE}"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]
    printed = [json.loads(process.communicate(timeout=300)[0]) for process in running]
    assert [process.returncode for process in running] == [0] * count
    for step, rows in enumerate(wanted):
        assert [row for part in printed for row in part[step]] == rows


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
    images=st.integers(0, 40),
    batch_size=st.sampled_from([4, 8, 12]),
    count=st.sampled_from([1, 2, 4]),
    canvas=st.sampled_from(["few", "one", "tight"]),
)
def test_evaluation_has_every_image_once_and_marks_the_padding(images, batch_size, count, canvas):
    data = dataset(Images(images))
    settings = dataclasses.replace(SMALL, eval_canvas=canvas)
    parts = [
        eval_batches(data, batch_size=batch_size, settings=mine) for mine in shares(settings, count)
    ]
    assert [len(part) for part in parts] == [-(-images // batch_size)] * count
    hosts = [list(batches) for batches in zip(*parts, strict=True)]
    for of_a_step in hosts:
        assert len({host.batch.images.shape for host in of_a_step}) == 1
    rows = list(itertools.chain.from_iterable(hosts))
    seen = [i for host in rows for i in host.image_ids[host.batch.valid].tolist()]
    assert sorted(seen) == list(range(100, 100 + images))
    for host in rows:
        padding = ~host.batch.valid
        assert (host.image_ids[padding] == -1).all()
        assert (host.batch.gt_labels[padding] == -1).all()
        assert not host.batch.images[padding].any() and not host.batch.gt_boxes[padding].any()
    valid = [host.batch.valid for host in rows]
    assert not valid or (np.diff(np.concatenate(valid).astype(int)) <= 0).all()  # only at the end
    whole = eval_batches(data, batch_size=batch_size, settings=settings)
    for step, of_a_step in enumerate(hosts):
        assert_rows_make_up(of_a_step, whole[step])
