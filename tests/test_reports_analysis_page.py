"""The page, the numbers and the figures of an analysis, whatever was found; and the script."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from detection_tables import CATEGORIES, perfect_results, random_results, random_truth
from html_check import check
from memory_data import memory_dataset, objects_of
from small import small_config

from retinanet_jax.config.settings import to_json
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.records import Categories
from retinanet_jax.metrics.coco import SUMMARY_NAMES, coco_average_precision
from retinanet_jax.reports.analysis.analysis_figures import draw_figures
from retinanet_jax.reports.analysis.analysis_page import findings, render
from retinanet_jax.reports.analysis.analyze_checkpoint import (
    Analysis,
    analyze_workdir,
    check_has_objects,
    judge,
    sample,
    settle,
)
from retinanet_jax.reports.analysis.as_json import as_tree
from retinanet_jax.reports.analysis.loss_distribution import BINS
from retinanet_jax.reports.analysis.measure import Measures
from retinanet_jax.reports.html.frame import standalone
from retinanet_jax.runtime.checkpoints import CheckpointError, Checkpoints
from retinanet_jax.training.setup import init_variables
from retinanet_jax.training.step import TrainState

ROOT = Path(__file__).resolve().parent.parent


def analysis_of(truth, results, categories=CATEGORIES, **fields) -> Analysis:
    rng = np.random.default_rng(0)
    # Two levels, P3 and P4, the latter without a positive anchor.
    counts = np.array([[900, 90], [30, 0], [20, 5]])
    logits = rng.integers(0, 9, (2, BINS))
    measures = Measures(np.array([3.0, 0.5]), np.array([6.0, 0.0]), *counts, logits)
    summary = coco_average_precision(truth, results).summary
    given = {"run": "mine", "step": 7, "dataset": "made up", "images": 200, "total": 200}
    given |= {"config": small_config(), "summary": summary, "measures": measures}
    return Analysis(**(given | judge(results, truth, categories, 0.4) | fields))


def page_of(analysis):
    return render(analysis, draw_figures(analysis))


def test_the_page_stands_alone_and_the_numbers_are_json():
    truth = random_truth()
    analysis = analysis_of(truth, random_results(truth))
    text = "\n".join(check(page_of(analysis)).text)
    assert "similar class" in text and "P4 has no positive anchor" in text
    tree = json.loads(json.dumps(as_tree(analysis), allow_nan=False))
    assert tree["errors"]["all"]["mean"]["C50"] == pytest.approx(tree["summary"]["AP50"])
    assert tree["average_precision"]["bus"]["AP"] is None
    assert tree["confusion"]["names"][-1] == "background"
    levels = {row["level"]: row for row in tree["loss"]}
    assert levels["P3"]["class_loss"] == pytest.approx(0.1) and levels["all"]["positives"] == 30
    shares = tree["hardest_examples"]["negative"]["gamma 2"]
    assert 0.01 < shares["hardest 1%"] < shares["hardest 10%"] < 1


@pytest.mark.parametrize("kind", ["nothing detected", "perfect", "no positives"])
def test_strange_findings_give_a_page(kind):
    truth, fields = random_truth(), {}
    results = [] if kind == "nothing detected" else perfect_results(truth)
    if kind == "no positives":
        nothing = np.zeros(2, int)
        logits = np.zeros((2, BINS), int)
        fields["measures"] = Measures(
            nothing * 1.0, nothing * 1.0, nothing, nothing, nothing, logits
        )
    analysis = analysis_of(truth, results, **fields)
    text = "\n".join(check(page_of(analysis)).text)
    assert not re.search(r"\bnan\b", text)
    json.dumps(as_tree(analysis), allow_nan=False)
    assert ("Nothing was detected" in text) == (not results)
    assert "What costs most" not in text


def test_what_costs_most_is_told():
    truth = random_truth()
    half = perfect_results(truth)[::2]
    (finding, *_) = findings(analysis_of(truth, half))
    assert "missed (FN)" in finding.problem
    moved = perfect_results(truth)
    for result in moved:
        x, y, width, height = result["bbox"]
        result["bbox"] = [x + width / 5, y, width, height]  # IoU .8 / 1.2
    (finding, *_) = findings(analysis_of(truth, moved))
    assert "right at .5 only (C50)" in finding.problem


def test_names_of_all_kinds_and_many_classes_stay_readable():
    names = tuple(f"<b>{i}</b> & a name longer than any legend has room for" for i in range(90))
    categories = Categories(names, tuple(range(1, 91)))
    truth = random_truth()
    truth["categories"] = [{"id": i, "name": n} for i, n in zip(categories.ids, names, strict=True)]
    analysis = analysis_of(truth, random_results(truth), categories)
    page = page_of(analysis)
    text = "\n".join(check(page).text)
    assert "similar class" not in text and "Of 90 classes the 20 worst" in text
    assert len(page) < 1_000_000


def test_figures_are_files_of_their_own():
    truth = random_truth()
    figures = draw_figures(analysis_of(truth, random_results(truth)))
    assert len(figures) == 12
    for svg in figures.values():
        whole = standalone(svg)
        root = ElementTree.fromstring(whole)
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and "var(" not in whole
        assert not re.search(r"nan|inf\b", re.sub(r"<title>.*?</title>|<text.*?</text>", "", whole))


def test_a_sample_is_spread_and_has_its_own_truth():
    dataset = load_dataset(small_config(data__shapes__num_eval=10).data, "validation")
    some = sample(dataset, 4)
    ids = [some.source.image_id(i) for i in range(len(some.source))]
    assert ids == [dataset.source.image_id(i) for i in (0, 3, 6, 9)]
    assert [image["id"] for image in some.ground_truth()["images"]] == ids
    assert sample(dataset, 10) is dataset


def test_data_without_objects_are_refused():
    content = {"images": [], "annotations": [{"iscrowd": 1}], "categories": []}
    images = memory_dataset([objects_of([])] * 2, name="test2017")
    dataset = dataclasses.replace(images, ground_truth=lambda: content)
    with pytest.raises(DataError, match="test2017: its 2 images have no object"):
        check_has_objects(dataset)


def test_losses_are_those_of_the_training_and_thresholds_those_that_are_asked_for():
    stored = small_config(loss__gamma=1.0, matching__negative_iou=0.3)
    asked = small_config(postprocess__score_threshold=0.2, evaluation__metric="voc")
    found = settle(stored, asked)
    assert found.loss == stored.loss and found.matching == stored.matching
    assert found.postprocess == asked.postprocess and found.evaluation.metric == "coco"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of a network that has learnt nothing, and sees no object at this threshold."""
    path = tmp_path_factory.mktemp("runs") / "untrained"
    config = small_config(data__cache_dir=str(path.parent / "cache"))
    model = build_model(config.model, 5, config.anchors.anchors_per_location)
    state = TrainState(jnp.int32(3), **init_variables(model, 0), opt_state=None, average=None)
    categories = load_dataset(config.data, "validation").categories
    metadata = {"names": list(categories.names), "ids": list(categories.ids)}
    with Checkpoints(path / "checkpoints") as checkpoints:
        checkpoints.save(3, state, {"config": to_json(config), **metadata})
    return path


def test_the_script_on_a_run(workdir, tmp_path):
    out = tmp_path / "pages/look.html"
    command = [sys.executable, "-m", "retinanet_jax", "analyze"]
    command += [f"--workdir={workdir}", f"--out={out}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # installed or not
    done = subprocess.run(
        [*command, "--figures", "--max_images=3"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = "\n".join(check(out.read_text(encoding="utf-8")).text)
    assert "untrained, step 3" in text and "3 of 5 images were looked at" in text
    tree = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert tuple(tree["summary"]) == SUMMARY_NAMES and tree["images"] == 3
    levels = {row["level"]: row for row in tree["loss"]}
    # Of 64 pixels P3 has 8 x 8 and P4 4 x 4 places of 9 anchors.
    assert [levels[name]["anchors"] for name in ("P3", "P4", "all")] == [1728, 432, 2160]
    examples = {
        kind: tree["hardest_examples"][kind]["examples"] for kind in ("positive", "negative")
    }
    whole = levels["all"]
    assert examples["positive"] == whole["positives"] > 0
    assert examples["negative"] == 5 * (2160 - whole["positives"] - whole["ignored"])
    figures = {path.stem for path in (tmp_path / "pages/look_figures").glob("*.svg")}
    assert {"errors_all", "precision_by_iou", "confusion", "loss_of_negatives"} <= figures
    assert "calibration" not in figures and tree["detections"] == 0


def test_a_workdir_without_the_checkpoint_is_told(workdir, tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint; train first"):
        analyze_workdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"has no checkpoint 4, but 3$"):
        analyze_workdir(workdir, step=4)
