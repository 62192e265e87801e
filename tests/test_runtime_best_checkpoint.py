"""The best checkpoint is kept, whatever happens to the others."""

import json
import math
import os
import shutil

import jax.numpy as jnp
import pytest

from retinanet_jax.runtime import best_checkpoint as best
from retinanet_jax.runtime.best_checkpoint import keep_best
from retinanet_jax.runtime.checkpoints import Checkpoints


def save(workdir, *steps: int) -> None:
    """Checkpoints whose array holds their step; only the last is kept."""
    with Checkpoints(workdir / "checkpoints", keep=1) as checkpoints:
        for step in steps:
            checkpoints.save(step, {"w": jnp.full(3, step)}, {})


def kept(workdir) -> tuple[list[int], float]:
    """The steps in best/, and the number in the checkpoint that is read."""
    folder = workdir / "best" / "checkpoints"
    steps = sorted(int(path.name) for path in folder.iterdir())
    return steps, float(Checkpoints(folder).read_part(("w",))["w"][0])


def test_the_best_checkpoint_outlives_the_others_and_restarts(tmp_path):
    found = []
    for step, ap in ((2, 0.1), (4, 0.3), (6, 0.2), (8, 0.3), (10, math.nan), (12, None)):
        save(tmp_path, step)  # opened again each time, as by a restart
        found.append(keep_best(tmp_path, step, {"AP": ap, "AP50": 0.7}))
    assert found == [True, True, False, False, False, False]
    assert kept(tmp_path) == ([4], 4.0)
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == 12
    stored = json.loads((tmp_path / "best/results.json").read_text())
    assert stored == {"step": 4, "summary": {"AP": 0.3, "AP50": 0.7}}


@pytest.mark.parametrize("before", ['{"step": 1, "summary": {"AP": null}}', '{"st', "[]"])
def test_an_undefined_or_damaged_record_is_never_the_best(tmp_path, before):
    save(tmp_path, 2)
    (tmp_path / "best").mkdir()
    (tmp_path / "best/results.json").write_text(before)
    assert not keep_best(tmp_path, 2, {"AP": None})
    assert keep_best(tmp_path, 2, {"AP": 0.0})
    assert kept(tmp_path) == ([2], 2.0)


def test_only_results_of_the_same_data_and_metric_compete(tmp_path):
    val = {"dataset": "d val", "images": 3, "digest": "a", "metric": "coco"}
    moved, train, lvis = val | {"dataset": "e val"}, val | {"digest": "b"}, val | {"metric": "lvis"}
    steps = [  # the AP, what it was measured on, and whether it is the best
        (0.9, None, True),  # of an earlier version
        (0.8, val, False),
        (0.95, val, True),
        (0.2, moved, False),
        (0.2, train, True),
        (0.1, lvis, True),
        (0.1, lvis, False),
        (None, val, False),
        (0.05, val, True),
    ]
    for step, (ap, measured, is_best) in enumerate(steps, 1):
        save(tmp_path, step)
        assert keep_best(tmp_path, step, {"AP": ap}, measured) == is_best, step
    assert best.measured_otherwise(tmp_path, moved) == ""
    assert best.measured_otherwise(tmp_path, lvis) == "coco on 3 images of d val"
    assert best.best_step(tmp_path) == len(steps) and kept(tmp_path)[0] == [len(steps)]


@pytest.mark.parametrize("links", [True, False])
def test_files_are_hard_links_where_possible(tmp_path, monkeypatch, links):
    def refuse(*_):
        raise PermissionError("no links here")

    if not links:
        monkeypatch.setattr(best.os, "link", refuse)
    save(tmp_path, 1)
    keep_best(tmp_path, 1, {"AP": 0.5})
    ours, theirs = (
        tmp_path / part / "1/manifest.json" for part in ("checkpoints", "best/checkpoints")
    )
    assert os.path.samefile(ours, theirs) is links
    shutil.rmtree(tmp_path / "checkpoints")
    assert kept(tmp_path) == ([1], 1.0)


def test_an_incomplete_copy_of_a_killed_run_is_replaced(tmp_path):
    save(tmp_path, 1)
    keep_best(tmp_path, 1, {"AP": 0.5})
    incomplete = tmp_path / "best/checkpoints/.2"
    incomplete.mkdir()
    (incomplete / "manifest.json").write_text("{")
    assert Checkpoints(incomplete.parent).latest_step() == 1
    save(tmp_path, 2)
    assert keep_best(tmp_path, 2, {"AP": 0.6})
    assert kept(tmp_path) == ([2], 2.0)
    # Killed before results.json was written, the evaluation runs again.
    (tmp_path / "best/results.json").write_text(json.dumps({"step": 1, "summary": {"AP": 0.5}}))
    assert keep_best(tmp_path, 2, {"AP": 0.6})
    assert kept(tmp_path) == ([2], 2.0)
