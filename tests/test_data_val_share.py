"""A held-out validation split: by names alone, stable, and without tearing videos apart."""

import itertools
import random

import pytest
from data_settings import data_settings
from layout_writers import SMALL, write_yolo

from retinanet_jax.data.annotations.split_names import SplitNames, find_split, resolve_splits
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.val_share import held_out, source_of, video_of


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3])
def test_about_the_share_is_held_out(share):
    names = [f"{random.Random(i).random()}.jpg" for i in range(4000)]
    assert sum(held_out(names, share)) / 4000 == pytest.approx(share, abs=0.02)


def test_it_depends_on_names_alone_and_stays_when_images_are_added():
    names = [f"photo-{random.Random(i).random()}x.jpg" for i in range(200)]
    chosen = dict(zip(names, held_out(names, 0.2), strict=True))
    shuffled = random.Random(0).sample(names, 200)
    assert held_out(shuffled, 0.2) == [chosen[name] for name in shuffled]
    part = names[::2]
    assert held_out(part, 0.2) == [chosen[name] for name in part]
    known = {"a.jpg": False, "b.jpg": False, "c.jpg": True, "d.jpg": False, "e.jpg": True}
    assert held_out(list(known), 0.3) == list(known.values())  # the same on every machine


def test_versions_of_one_image_stay_together():
    names = [f"{i:02d}x_jpg.rf.{version * 8}.jpg" for i in range(40) for version in "abc"]
    out = held_out(names, 0.2)
    assert 0 < sum(out) < 60
    for i in range(40):
        assert len(set(out[3 * i : 3 * i + 3])) == 1


@pytest.mark.parametrize(
    "pattern", ["clip{v}_{f:06d}.jpg", "v{v}-frame{f}.png", "cam{v}/{f:04d}.jpg"]
)
def test_frames_of_one_video_stay_together(pattern):
    names = [pattern.format(v=chr(97 + v), f=100 + f) for v in range(10) for f in range(20)]
    out = held_out(names, 0.2)
    assert 0 < sum(out) <= 100
    for video in range(10):
        assert len(set(out[20 * video : 20 * video + 20])) == 1


def test_numbers_of_one_camera_are_not_a_video():
    names = [f"IMG_{i:04d}.jpg" for i in range(500)]
    assert 20 < sum(held_out(names, 0.1)) < 80


@pytest.mark.parametrize("pattern", ["images/frame_{:06d}.PNG", "MOT16-02/img1/{:06d}.jpg"])
@pytest.mark.parametrize("step", [1, 5])
@pytest.mark.parametrize("count", [60, 300, 1000])
def test_of_one_long_video_consecutive_frames_are_held_out(count, step, pattern):
    names = [pattern.format(step * i) for i in range(count)]
    out = held_out(names, 0.1)
    assert sum(out) / count == pytest.approx(0.1, abs=0.05)
    borders = sum(one != other for one, other in itertools.pairwise(out))
    assert 1 <= borders <= 4
    shuffled = random.Random(0).sample(names, count)
    assert sorted(itertools.compress(shuffled, held_out(shuffled, 0.1))) == sorted(
        itertools.compress(names, out)
    )


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_few_images_are_divided_too(count):
    out = held_out([f"{letter}.jpg" for letter in "abcde"[:count]], 0.01)
    assert 0 < sum(out) < count


def test_names_tell_sources_and_videos():
    assert source_of("a/rei95_jpg.rf.01fb53.jpg") == "rei95"
    assert source_of("a/b.c.jpg") == "b.c"
    assert video_of("x/match_3_mp4-0012_jpg.rf.9f.jpg") == "match_3_mp4"
    assert video_of("cam1/000123.jpg") == "cam1/"
    assert video_of("train/MOT16-02/img1/000123.jpg") == "MOT16-02/"
    assert video_of("portrait.jpg") == "portrait"


@pytest.mark.parametrize(
    "train, evaluation, available, expected",
    [
        ("train", "auto", ("train", "valid", "test"), ("train", "valid")),
        ("train", "auto", ("train", "test"), ("train", "test")),
        ("train", "val", ("train", "validation"), ("train", "validation")),
        ("train", "test", ("train", "valid", "test"), ("train", "test")),
        ("train", "auto", ("train2017", "val2017"), ("train2017", "val2017")),
        ("train", "auto", ("default",), ("default", None)),
        ("train", "auto", ("train",), ("train", None)),
        ("train", "train", ("train",), ("train", "train")),
        ("train", "val", ("val",), (None, "val")),
        ("mine", "yours", ("mine", "yours"), ("mine", "yours")),
        ("train", "yours", ("train", "val"), ("train", None)),
        ("train", "auto", ("Train", "Test"), ("Train", "Test")),
        ("train", "auto", ("train", "validate", "test"), ("train", "validate")),
        ("train", "auto", ("train", "eval"), ("train", "eval")),
    ],
)
def test_splits_are_found_by_their_meaning(train, evaluation, available, expected):
    assert resolve_splits(train, evaluation, available) == SplitNames(*expected)


def test_an_ambiguous_name_is_not_guessed():
    assert find_split("val", ("val2014", "val2017")) is None
    assert find_split("val", ("val2014", "val")) == "val"


@pytest.mark.parametrize(
    ("splits", "wanted", "name"),
    [
        (("train", "val"), "auto", "val"),
        (("train", "val"), "validation[:50%]", "val[:50%]"),
        (("train",), "auto", "held out of train"),
        (("train", "val"), "train", "train"),
    ],
)
def test_a_dataset_has_the_name_of_its_split_on_disk(tmp_path, splits, wanted, name):
    root = tmp_path / "data"
    write_yolo(root, {split: SMALL["train"] for split in splits})
    settings = data_settings(
        "folder", root, tmp_path / "cache", eval_split=wanted, val_share=0.4, on_error="skip"
    )
    dataset = load_dataset(settings, wanted)
    assert (dataset.name, dataset.split) == (f"{root} {name}", name)
    assert load_dataset(settings, "train").split == "train"
