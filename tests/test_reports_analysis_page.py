"""The page, the numbers and the plots of an analysis, for all kinds of results; the command."""

import dataclasses
import json
import re
import xml.etree.ElementTree as ElementTree

import jax.numpy as jnp
import numpy as np
import pytest
from detection_tables import CATEGORIES, perfect_results, random_results, random_truth
from html_check import check
from memory_data import memory_dataset, objects_of
from small import small_config

from retinanet_jax.cli import app
from retinanet_jax.config.settings import to_json
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.records import Categories
from retinanet_jax.metrics.coco import SUMMARY_NAMES, coco_average_precision
from retinanet_jax.reports.analysis.analysis_json import to_json_tree
from retinanet_jax.reports.analysis.analysis_page import find_problems, render_analysis
from retinanet_jax.reports.analysis.analysis_plots import draw_plots
from retinanet_jax.reports.analysis.analyze_checkpoint import (
    Analysis,
    analysis_config,
    analyze_detections,
    analyze_workdir,
    check_has_objects,
    subsample,
)
from retinanet_jax.reports.analysis.level_losses import LossStatistics
from retinanet_jax.reports.analysis.loss_distribution import BINS
from retinanet_jax.reports.plot_style import svg_file
from retinanet_jax.runtime.checkpoints import CheckpointError, Checkpoints
from retinanet_jax.training.setup import init_variables
from retinanet_jax.training.train_state import TrainState


def analysis_of(truth, results, categories=CATEGORIES, **fields) -> Analysis:
    rng = np.random.default_rng(0)
    # Two levels, P3 and P4, the latter without a positive anchor.
    counts = np.array([[900, 90], [30, 0], [20, 5]])
    logits = rng.integers(0, 9, (2, BINS))
    loss = LossStatistics(np.array([3.0, 0.5]), np.array([6.0, 0.0]), *counts, logits)
    summary = coco_average_precision(truth, results).summary
    given = {"run": "mine", "step": 7, "dataset": "made up", "images": 200, "total": 200}
    given |= {"config": small_config(), "summary": summary, "loss": loss}
    return Analysis(**(given | analyze_detections(results, truth, categories, 0.4) | fields))


def page_of(analysis):
    return render_analysis(analysis, draw_plots(analysis))


def test_page_is_self_contained_and_numbers_are_json():
    truth = random_truth()
    analysis = analysis_of(truth, random_results(truth))
    text = "\n".join(check(page_of(analysis)).text)
    assert "similar class" in text and "P4 has no positive anchor" in text
    tree = json.loads(json.dumps(to_json_tree(analysis), allow_nan=False))
    assert tree["errors"]["all"]["C50"] == pytest.approx(tree["summary"]["AP50"])
    classes = {entry["name"]: entry for entry in tree["classes"]}
    assert list(classes) == list(CATEGORIES.names) and classes["bus"]["AP"] is None
    defined = [entry["AP"] for entry in tree["classes"] if entry["AP"] is not None]
    assert np.mean(defined) == pytest.approx(tree["summary"]["AP"])
    assert np.shape(tree["confusion_matrix"]) == (6, 6)
    levels = {row["level"]: row for row in tree["loss"]}
    assert levels["P3"]["class_loss"] == pytest.approx(0.1) and levels["all"]["positives"] == 30
    shares = tree["hardest_examples"]["negative"]["gamma 2"]
    assert 0.01 < shares["hardest 1%"] < shares["hardest 10%"] < 1


@pytest.mark.parametrize("kind", ["nothing detected", "perfect", "no positives"])
def test_unusual_results_give_a_page(kind):
    truth, fields = random_truth(), {}
    results = [] if kind == "nothing detected" else perfect_results(truth)
    if kind == "no positives":
        nothing = np.zeros(2, int)
        logits = np.zeros((2, BINS), int)
        fields["loss"] = LossStatistics(nothing * 1.0, nothing * 1.0, *[nothing] * 3, logits)
    analysis = analysis_of(truth, results, **fields)
    text = "\n".join(check(page_of(analysis)).text)
    assert not re.search(r"\bnan\b", text)
    json.dumps(to_json_tree(analysis), allow_nan=False)
    assert ("No detections" in text) == (not results)
    assert "Largest source of errors" not in text


def test_largest_source_of_errors():
    truth = random_truth()
    half = perfect_results(truth)[::2]
    (finding, *_) = find_problems(analysis_of(truth, half))
    assert "missed objects (FN)" in finding.problem
    moved = perfect_results(truth)
    for result in moved:
        x, y, width, height = result["bbox"]
        result["bbox"] = [x + width / 5, y, width, height]  # IoU .8 / 1.2
    (finding, *_) = find_problems(analysis_of(truth, moved))
    assert "(C50)" in finding.problem and "--config.loss.box=giou" in finding.fix


def test_many_classes_with_long_names():
    names = tuple(f"<b>{i}</b> & a name longer than any legend has room for" for i in range(90))
    categories = Categories(names, tuple(range(1, 91)))
    truth = random_truth()
    truth["categories"] = [{"id": i, "name": n} for i, n in zip(categories.ids, names, strict=True)]
    analysis = analysis_of(truth, random_results(truth), categories)
    page = page_of(analysis)
    text = "\n".join(check(page).text)
    assert "similar class" not in text and "20 of 90 classes" in text
    assert len(page) < 1_000_000


def test_plots_are_svg_files():
    truth = random_truth()
    plots = draw_plots(analysis_of(truth, random_results(truth)))
    assert len(plots) == 12
    for name, plot in plots.items():
        file = svg_file(plot, name)
        assert ElementTree.fromstring(file).get("aria-label") == name
        assert not re.search(r"\b(nan|inf)\b", re.sub(r"<text.*?</text>", "", file))


def test_subsamples_are_evenly_spread():
    dataset = load_dataset(small_config(data__shapes__num_eval=10).data, "validation")
    some = subsample(dataset, 4)
    ids = [some.source.image_id(i) for i in range(len(some.source))]
    assert ids == [dataset.source.image_id(i) for i in (0, 3, 6, 9)]
    assert [image["id"] for image in some.ground_truth()["images"]] == ids
    assert subsample(dataset, 10) is dataset


def test_data_without_objects_are_an_error():
    content = {"images": [], "annotations": [{"iscrowd": 1}], "categories": []}
    images = memory_dataset([objects_of([])] * 2, name="test2017")
    dataset = dataclasses.replace(images, ground_truth=lambda: content)
    with pytest.raises(DataError, match="test2017: no objects in its 2 images"):
        check_has_objects(dataset)


def test_loss_is_that_of_the_checkpoint_and_thresholds_those_of_the_config():
    stored = small_config(loss__gamma=1.0, matching__negative_iou=0.3)
    asked = small_config(postprocess__score_threshold=0.2, evaluation__metric="voc")
    found = analysis_config(stored, asked)
    assert found.loss == stored.loss and found.matching == stored.matching
    assert found.postprocess == asked.postprocess and found.evaluation.metric == "coco"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """The workdir of an untrained network, whose scores are below the threshold."""
    path = tmp_path_factory.mktemp("runs") / "untrained"
    config = small_config(data__cache_dir=str(path.parent / "cache"))
    model = build_model(config.model, 5, config.anchors.anchors_per_location)
    state = TrainState(jnp.int32(3), **init_variables(model, 0), opt_state=None, average=None)
    categories = load_dataset(config.data, "validation").categories
    metadata = {"names": list(categories.names), "ids": list(categories.ids)}
    with Checkpoints(path / "checkpoints") as checkpoints:
        checkpoints.save(3, state, {"config": to_json(config), **metadata})
    return path


@pytest.fixture(scope="module")
def analyzed(workdir):
    """A page of the command, named like files of the run."""
    for name in ("results.json", "config.json"):
        (workdir / name).write_text("of the run", encoding="utf-8")
    out = workdir / "results.html"
    app.main(["analyze", f"--workdir={workdir}", f"--out={out}", "--figures", "--max_images=3"])
    return out


def test_command_writes_the_page_the_numbers_and_the_plots(analyzed):
    text = "\n".join(check(analyzed.read_text(encoding="utf-8")).text)
    assert "untrained, step 3" in text and "Only 3 of 5 images were analyzed" in text
    numbers = analyzed.with_name("results_numbers.json")
    tree = json.loads(numbers.read_text(encoding="utf-8"))
    assert tuple(tree["summary"]) == SUMMARY_NAMES and tree["images"] == 3
    levels = {row["level"]: row for row in tree["loss"]}
    # An image of 64 pixels has 9 anchors at each of 8 x 8 locations of P3 and 4 x 4 of P4.
    assert [levels[name]["anchors"] for name in ("P3", "P4", "all")] == [1728, 432, 2160]
    examples = {
        kind: tree["hardest_examples"][kind]["examples"] for kind in ("positive", "negative")
    }
    total = levels["all"]
    assert examples["positive"] == total["positives"] > 0
    assert examples["negative"] == 5 * (2160 - total["positives"] - total["ignored"])
    plots = {path.stem for path in analyzed.with_name("results_figures").glob("*.svg")}
    assert {"errors_all", "precision_by_iou", "confusion", "loss_of_negatives"} <= plots
    assert "calibration" not in plots and tree["detections"] == 0


def test_command_leaves_the_files_of_the_run(analyzed):
    for name in ("results.json", "config.json"):
        assert analyzed.with_name(name).read_text(encoding="utf-8") == "of the run"


def test_classes_may_have_the_names_of_totals():
    names, truth = ("all", "mean", "background", "all", "missed"), random_truth()
    results = random_results(truth)
    plain = to_json_tree(analysis_of(truth, results))
    analysis = analysis_of(truth, results, Categories(names, CATEGORIES.ids))
    tree = to_json_tree(analysis)
    assert [entry.pop("name") for entry in tree["classes"]] == list(names)
    for entry in plain["classes"]:
        del entry["name"]
    assert tree == plain
    text = check(page_of(analysis)).text
    assert "mean of the classes" in text and "(background)" in text and "(missed)" in text


def test_a_missing_checkpoint_is_an_error(workdir, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint; train first"):
        analyze_workdir(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint of step 4; it has 3"):
        analyze_workdir(workdir, step=4)
