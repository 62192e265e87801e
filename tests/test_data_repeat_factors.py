"""Repeat-factor sampling: the formula of LVIS, and an order that is a function of the step."""

import dataclasses
from collections import Counter
from types import SimpleNamespace

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from image_data import ALL_ON, SMALL, Images
from rows_of_a_process import fingerprint
from test_data_mix import config, write_folder

from retinanet_jax.data.mix import load_training_set
from retinanet_jax.data.pipeline import order
from retinanet_jax.data.pipeline.epochs import RepeatedEpochs
from retinanet_jax.data.pipeline.input_pipeline import train_batches
from retinanet_jax.data.repeat_factors import class_shares, repeat_factors

FACTORS = np.array([1.0, 2.5, 1.0, 3.2, 1.01, 1.0, 2.0])


@hypothesis.given(
    st.lists(st.sets(st.integers(0, 4)), min_size=1, max_size=20), st.floats(0.001, 1.0)
)
def test_factors_follow_the_formula(images, threshold):
    labels = [np.array(sorted(classes), np.int32) for classes in images]
    factors = repeat_factors(labels, class_shares(labels, 5), threshold)
    for classes, factor in zip(images, factors, strict=True):
        wanted = 1.0
        for c in classes:
            share = sum(c in other for other in images) / len(images)
            wanted = max(wanted, (threshold / share) ** 0.5)
        assert factor == pytest.approx(wanted, rel=1e-12)


def sequence(factors: np.ndarray, seed: int, epochs: int) -> list[list[int]]:
    layout = RepeatedEpochs(factors, seed)
    return [layout.images(epoch)[0].tolist() for epoch in range(epochs)]


@hypothesis.given(
    st.lists(st.floats(1, 6), min_size=1, max_size=12).map(np.array), st.integers(0, 3)
)
def test_every_image_comes_its_factor_times_an_epoch_rounded(factors, seed):
    layout, total, place = RepeatedEpochs(factors, seed), Counter(), 0
    for epoch, images in enumerate(sequence(factors, seed, 8)):
        counts = Counter(images)
        for i, factor in enumerate(factors):
            assert np.floor(factor) <= counts[i] <= np.ceil(factor)
        total += counts
        assert layout.begin(epoch) == place
        assert {layout.at(place), layout.at(place + len(images) - 1)} == {epoch}
        place += len(images)
    for i, factor in enumerate(factors):
        assert abs(total[i] - 8 * factor) <= 1


def test_the_mean_over_seeds_is_the_factor():
    first = [sequence(FACTORS, seed, 1)[0] for seed in range(2000)]
    means = [sum(images.count(i) for images in first) / len(first) for i in range(len(FACTORS))]
    np.testing.assert_allclose(means, FACTORS, atol=0.05)  # 4.5 standard deviations


def test_plans_do_not_depend_on_which_were_made_before():
    def plans(steps):
        layout = RepeatedEpochs(FACTORS, 5)
        plan = order.TrainOrder(Images(len(FACTORS)), 4, 5, SMALL, layout)
        return {step: plan(step) for step in steps}

    ahead = plans(range(40))
    assert plans(reversed(range(40))) == ahead
    rows = [row for plan in ahead.values() for row in zip(plan.indices, plan.repeats, strict=True)]
    # All that come, each time with a new number, and so with its own augmentation.
    assert len(set(rows)) == len(rows)
    counts = Counter(index for index, _ in rows)
    epochs = 160 / FACTORS.sum()
    for i, factor in enumerate(FACTORS):
        assert abs(counts[i] - epochs * factor) <= np.ceil(factor) + 1


@pytest.mark.parametrize("start", [0, 7, 13])
def test_resuming_is_exact(start):
    data = SimpleNamespace(source=Images(len(FACTORS)), name="images", repeats=FACTORS)
    options = {"batch_size": 4, "seed": 5, "augmentation": ALL_ON}
    alone = train_batches(data, settings=SMALL, **options)
    threads = dataclasses.replace(SMALL, num_threads=3, prefetch=3)
    stream = train_batches(data, settings=threads, **options).iterate(start)
    for step in range(start, start + 8):
        assert fingerprint(next(stream)) == fingerprint(alone[step])


def test_a_folder_with_rare_classes(tmp_path):
    """Of four images, two are red: sqrt(.5 / .5) and sqrt(.5 / .25) times an epoch."""
    root = write_folder(tmp_path / "data", ["red", "green", "blue"], 4)
    settings = dataclasses.replace(config(root, tmp_path / "cache"), repeat_threshold=0.5)
    dataset = load_training_set(settings)
    names = [dataset.categories.names[dataset.source.annotated(i).labels[0]] for i in range(4)]
    assert sorted(names) == ["blue", "green", "red", "red"]
    np.testing.assert_allclose(dataset.repeats, [1 if n == "red" else 2**0.5 for n in names])
    assert dataset.epoch_size == 5
    assert "2 of 4 images appear more than once per epoch, up to 1.4 times" in dataset.found
    assert "rarest classes: green in 25.00%, blue in 25.00%" in dataset.found
    assert load_training_set(config(root, tmp_path / "cache")).repeats is None


@pytest.mark.parametrize("value", [0.0, -0.1, 1.5])
def test_invalid_thresholds_raise(tmp_path, value):
    with pytest.raises(ValueError, match=rf"data\.repeat_threshold: {value} .*such as|above 0"):
        dataclasses.replace(config(tmp_path, tmp_path), repeat_threshold=value)
