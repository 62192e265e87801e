"""torchvision's two RetinaNets, imported from a file: its numbers from pixels to detections."""

import functools
from typing import NamedTuple

import golden_models
import jax
import numpy as np
import pytest
from golden_models import list_ends, stored

from retinanet_jax.core import box_coder
from retinanet_jax.core import boxes as box_ops
from retinanet_jax.core.anchors import anchors_for_image
from retinanet_jax.core.layers import normalize
from retinanet_jax.core.nms import nms
from retinanet_jax.core.postprocess import candidates
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.pipeline.batch import collate, without_objects
from retinanet_jax.data.pipeline.canvas import eval_canvas_for
from retinanet_jax.data.pipeline.input_pipeline import fit
from retinanet_jax.inference.detector import Detector

LEVELS = ("P3", "P4", "P5", "P6", "P7")


class Run(NamedTuple):
    """A golden model and what our pipeline and network make of the golden images."""

    golden: dict
    loaded: object
    config: object
    images: list
    batch: object
    inputs: np.ndarray
    anchors: tuple
    features: dict
    class_logits: tuple
    box_deltas: tuple


@pytest.fixture(scope="module", params=[pytest.param("v1", marks=pytest.mark.slow), "v2"])
def run(request, golden_dir, tmp_path_factory):
    """All of it once for each model: one compilation, one pass over the three images."""
    golden = dict(np.load(golden_dir / f"{request.param}.npz"))
    folder = tmp_path_factory.mktemp("golden")
    loaded = golden_models.load_detector(golden_dir, folder, request.param)
    assert loaded.recipe == f"torchvision_{request.param}" and loaded.report.random == ()
    config = golden_models.with_golden_sides(loaded.config, golden_dir, golden)
    images = golden_models.images(golden_dir)
    examples = [fit(without_objects(image), config.pipeline) for image in images]
    sizes = np.array([example.image.shape[:2] for example in examples])
    canvas = eval_canvas_for(sizes, config.pipeline)
    host = collate(examples, canvas, 1, len(images), dtype=np.float32)
    model = build_model(
        config.model, loaded.categories.num_classes, config.anchors.anchors_per_location
    )

    @jax.jit
    def compute(variables, batch):
        inputs = normalize(batch.images, config.pixels, batch.image_sizes)
        features = model.apply(variables, inputs, method="features")
        return inputs, features, model.apply(variables, inputs, train=False)

    inputs, features, predictions = compute(loaded.variables, host.batch)
    anchors = anchors_for_image(inputs.shape[1:3], config.anchors)
    return Run(golden, loaded, config, images, host.batch, inputs, anchors, features, *predictions)


def test_preprocessed_batch(run):
    np.testing.assert_array_equal(run.batch.image_sizes, run.golden["eval/image_sizes"])
    golden_models.assert_close(run.golden, "eval/batch", run.inputs)


def test_features_of_backbone_and_pyramid(run):
    for key in ("C3", "C4", "C5", *LEVELS):
        golden_models.assert_close(run.golden, f"eval/{key}", run.features[key])


def test_outputs_of_the_heads(run):
    for index, level in enumerate(LEVELS):
        count = run.golden["eval/num_anchors_per_level"][index]
        assert run.class_logits[index].shape[1] == count
        golden_models.assert_close(run.golden, f"eval/cls_logits/{level}", run.class_logits[index])
        golden_models.assert_close(
            run.golden, f"eval/bbox_regression/{level}", run.box_deltas[index]
        )


def test_anchors_and_decoded_boxes(run):
    anchors, deltas = np.concatenate(run.anchors), np.concatenate(run.box_deltas, axis=1)
    if "eval/anchors" in run.golden:
        np.testing.assert_array_equal(anchors, run.golden["eval/anchors"])
    for image, size in enumerate(run.golden["eval/image_sizes"]):
        key = f"eval/decoded/{image}"
        decoded = box_coder.decode(anchors, deltas[image])
        assert decoded.shape == tuple(run.golden[f"{key}/shape"])
        step, allowed = int(run.golden[f"{key}/step"]), 6 * run.golden[f"{key}/f32_err"]
        np.testing.assert_allclose(decoded[::step], run.golden[f"{key}/rows"], atol=allowed)
        clipped = box_ops.clip(decoded, size)[::step]
        wanted = run.golden[f"eval/decoded_clipped/{image}/rows"]
        np.testing.assert_allclose(clipped, wanted, atol=allowed)


def test_candidates_before_nms(run):
    find = jax.jit(functools.partial(candidates, config=run.config.postprocess))
    for image, size in enumerate(run.batch.image_sizes):
        levels = [
            find(logits[image], deltas[image], anchors, size)
            for logits, deltas, anchors in zip(
                run.class_logits, run.box_deltas, run.anchors, strict=True
            )
        ]
        full = run.config.postprocess.pre_nms_top_k
        found = [[np.asarray(part)[np.asarray(rows.valid)] for part in rows[:3]] for rows in levels]
        cuts = [scores[-1] for _, scores, _ in found if len(scores) == full]
        cuts.append(run.config.postprocess.score_threshold)
        golden_models.assert_same_detections(
            [np.concatenate(parts) for parts in zip(*found, strict=True)],
            stored(run.golden, f"eval/candidates/{image}"),
            cuts=cuts,
            box_atol=6 * run.golden[f"eval/decoded/{image}/f32_err"],
        )


def test_nms_of_the_stored_candidates(run):
    """All that torchvision keeps, before its cut at 300."""
    images = [stored(run.golden, f"eval/candidates/{image}") for image in range(len(run.images))]
    count = max(len(scores) for _, scores, _ in images)  # one size, one compilation
    for image, rows in enumerate(images):
        boxes, scores, labels = (np.resize(part, (count, *part.shape[1:])) for part in rows)
        keep = run.golden[f"eval/candidates/{image}/keep"]
        indices, valid = nms(
            boxes,
            scores,
            np.arange(count) < len(rows[1]),
            iou_threshold=run.config.postprocess.nms_iou,
            max_outputs=count,
            labels=labels.astype(np.int32),
        )
        found = np.asarray(indices)[np.asarray(valid)]
        assert set(found) == set(keep)
        np.testing.assert_array_equal(scores[found], scores[keep])


def test_detections_of_the_batch_and_of_one_image(run):
    """The public way in: images to detections in their own pixels."""
    loaded = run.loaded
    # All in one batch, as torchvision had them: the padding of each depends on the others.
    detector = Detector(loaded.variables, run.config, loaded.categories, batch_size=len(run.images))
    for image, found in enumerate(detector(run.images)):
        golden_models.assert_same_detections(
            golden_models.parts(found),
            stored(run.golden, f"eval/detections/{image}"),
            cuts=list_ends(run.golden, image),
        )
    alone = {key.split("/")[1] for key in run.golden if key.startswith("eval/single")}
    assert alone, "the golden file has eval/singleN entries"
    for name in alone:
        found = detector(run.images[int(name.removeprefix("single"))])
        wanted = stored(run.golden, f"eval/{name}")
        parts = golden_models.parts(found)
        golden_models.assert_same_detections(parts, wanted, cuts=wanted[1][-1:])
