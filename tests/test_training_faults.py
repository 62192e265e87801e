"""Data that vanish or change during a run: errors name file and record, and the run resumes."""

import contextlib
import dataclasses
import json
import os
from pathlib import Path
from unittest import mock

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from small import small_config

from retinanet_jax.core.focal import FocalParams
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.pipeline.prefetch import ExampleError
from retinanet_jax.data.store.prepare_folder import prepare_folder
from retinanet_jax.runtime.checkpoints import Checkpoints
from retinanet_jax.training import run, run_checkpoints
from retinanet_jax.training.evaluation import Evaluation
from retinanet_jax.training.run import train_and_evaluate
from retinanet_jax.training.setup import TrainingSetup
from retinanet_jax.training.train_state import TrainState

IMAGES = 60  # of noise, so that a file of records has many chunks


@pytest.fixture
def config(tmp_path):
    """A run on a folder of images, which is read in place."""
    root, rng = tmp_path / "folder", np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    for i in range(IMAGES):
        cv2.imwrite(str(root / f"images/{i}.png"), rng.integers(0, 256, (64, 64, 3), np.uint8))
    box = {"category_id": 1, "bbox": [9, 9, 40, 40], "area": 1600}
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": 64, "width": 64} for i in range(IMAGES)
        ],
        "annotations": [{"id": i + 1, "image_id": i, **box} for i in range(IMAGES)],
        "categories": [{"id": 1, "name": "dog"}],
    }
    for split in ("train", "val"):
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    return small_config(
        data__name="folder", data__root=str(root), data__cache_dir=str(tmp_path / "cache"),
        data__eval_split="val", train__steps=30,
    )  # fmt: skip


@pytest.fixture
def prepared(config, tmp_path):
    """The same run on ArrayRecord files."""
    folder = prepare_folder(config.data, tmp_path / "prepared")
    return dataclasses.replace(config, data=dataclasses.replace(config.data, root=str(folder)))


def records_of(config) -> Path:
    (file,) = Path(config.data.root).rglob("folder-train.array_record*")
    return file


def files_of(config) -> list[Path]:
    """The files that training reads."""
    images = sorted(Path(config.data.root).glob("images/*.png"))
    return images or [records_of(config)]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 3)


def change(path: Path) -> None:
    content = np.fromfile(path, np.uint8)
    content[len(content) // 3 :] ^= 0x55
    with path.open("r+b") as file:
        file.write(content.tobytes())


@pytest.mark.parametrize(
    ("damage", "is_open", "expected"),
    [
        (cut, True, "is missing: the file was truncated"),
        (change, True, "hash mismatch"),
        (cut, False, ""),
        (Path.unlink, False, "No such file"),
    ],
)
def test_damaged_records_are_named(prepared, damage, is_open, expected):
    source, file = load_dataset(prepared.data, "train").source, records_of(prepared)
    if is_open:
        source[0]
    damage(file)
    with pytest.raises(DataError) as error:
        for i in range(IMAGES):
            source[i]
    text = str(error.value)
    assert text.startswith(f"{file}: record ") and expected in text
    assert "prepare the data again" in text


def test_an_open_file_is_readable_after_it_was_deleted(prepared):
    source = load_dataset(prepared.data, "train").source
    first = source[0].image
    records_of(prepared).unlink()
    assert len({source[i].image_id for i in range(IMAGES)}) == IMAGES
    np.testing.assert_array_equal(source[0].image, first)


def setup_that(acts) -> TrainingSetup:
    """Its state is a fold over all images so far; `acts(step)` is called in each step."""

    def step_fn(state, batch, focal, learning_rate):
        acts(int(state.step) + 1)
        seen = 0.5 * state.params["backbone"]["seen"] + jnp.mean(
            jnp.asarray(batch.images, jnp.float32)
        )
        names = ("loss", "class_loss", "box_loss", "gradient_norm", "learning_rate")
        metrics = dict.fromkeys(names, np.ones(())) | {"skipped": np.zeros(())}
        return TrainState(state.step + 1, {"backbone": {"seen": seen}}, {}, {}), metrics

    state = TrainState(jnp.int32(0), {"backbone": {"seen": jnp.zeros(())}}, {}, {})
    focal = FocalParams(jnp.float32(2), None)
    return TrainingSetup(
        step_fn, lambda *_: None, focal, schedule=lambda step: np.float32(0.1), state=state
    )


def train(config, workdir: Path, acts=lambda step: None) -> float:
    """The state at the end."""
    with (
        mock.patch.object(run, "make_setup", lambda *_, **__: setup_that(acts)),
        mock.patch.object(
            run, "compiled_ahead", lambda functions, *_: contextlib.nullcontext(functions)
        ),
        mock.patch.object(
            run_checkpoints, "evaluate_and_log", lambda *_, **__: Evaluation({"AP": 0.0}, {}, [])
        ),
    ):
        train_and_evaluate(config, workdir)
    return float(
        Checkpoints(workdir / "checkpoints").read_part(("params",))["params"]["backbone"]["seen"]
    )


@pytest.mark.parametrize(("kind", "damage"), [("config", cut), ("prepared", change)])
def test_a_run_ends_on_damaged_data_and_resumes_once_they_are_restored(
    request, tmp_path, kind, damage
):
    config = request.getfixturevalue(kind)
    straight = train(config, tmp_path / "straight")
    whole = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files_of(config)}

    def acts(step):
        if step == 7:
            for path in whole:
                damage(path)

    with pytest.raises(ExampleError) as error:
        train(config, tmp_path / "damaged", acts)
    text = str(error.value)
    assert any(str(path) in text for path in whole) and "image id" in text
    assert Checkpoints(tmp_path / "damaged/checkpoints").latest_step() >= 6
    for path, (content, time) in whole.items():
        path.write_bytes(content)
        os.utime(path, ns=(time, time))
    assert train(config, tmp_path / "damaged") == straight
