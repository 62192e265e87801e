"""Contestant of detect.py: `retinanet-jax detect` on a folder, or the compiled function alone."""

import contextlib
import io
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from benchmarks.contestants import serve, time_calls
from benchmarks.network_ours import CATEGORIES
from retinanet_jax.cli.detect_files import Job, detect
from retinanet_jax.cli.inputs import find_inputs
from retinanet_jax.config.settings import default_config, from_config_dict
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.inference.detector import Detector

IN_MEMORY = 32  # batches of the bare function, which cycles through them
OBJECTS = 10  # drawn on each image


def random_detector(size: int, backbone: str, batch_size: int) -> Detector:
    """A Detector with random weights and a score threshold of 0."""
    tree = default_config()
    fields = {
        "model.backbone": backbone,
        "model.norm": "batch",
        "model.frozen_stages": 0,
        "pipeline.min_side": size,
        "pipeline.max_side": round(size * 1333 / 800),
        "postprocess.score_threshold": 0.0,
    }
    tree.update_from_flattened_dict(fields)
    config = from_config_dict(tree)
    model = build_model(config.model, CATEGORIES.num_classes, config.anchors.anchors_per_location)
    return Detector(_drawn(model), config, CATEGORIES, batch_size=batch_size)


def _drawn(model) -> dict:
    """Random variables without compiling an initialization."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            spread = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            return (spread * rng.standard_normal(leaf.shape)).astype(np.float32)
        return np.full(leaf.shape, path[-1].key in ("scale", "var"), np.float32)

    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    return jax.tree_util.tree_map_with_path(draw, shapes)


def detecting(detector: Detector, images: Path, formats: str) -> Callable[[], None]:
    """A function that does the work of `retinanet-jax detect`."""
    options = {"threshold": 0.0, "max_detections": OBJECTS}

    def work() -> None:
        with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()):
            inputs = find_inputs([str(images)], Path(out))
            failed = detect(detector, Job(inputs, Path(out), formats.split(","), options))
        assert not failed, failed

    return work


def bare(detector: Detector, images: list[Path]) -> Callable[[], None]:
    """A function that detects in as many images, from batches in memory."""
    batches, predict_fn = [], detector.predict_fn

    def keep(variables, batch):
        batches.append(batch)
        return predict_fn(variables, batch)

    detector.predict_fn = keep
    for _ in detector.stream(images[: IN_MEMORY * detector.batch_size]):
        pass
    detector.predict_fn = predict_fn

    def work() -> None:
        running = deque()
        for i in range(-(-len(images) // detector.batch_size)):
            running.append(predict_fn(detector.variables, batches[i % len(batches)]))
            if len(running) > 2:
                jax.device_get(running.popleft())
        jax.block_until_ready(list(running))

    return work


if __name__ == "__main__":
    mode, folder, size, backbone, batch_size = sys.argv[1:]
    detector = random_detector(int(size), backbone, int(batch_size))
    images = find_inputs([folder], Path(folder) / "none").images
    is_bare = mode == "bare"
    work = bare(detector, images) if is_bare else detecting(detector, Path(folder), mode)
    device = jax.devices()[0].device_kind

    def round_of_work() -> dict:
        times = time_calls(work)
        return {name: time / len(images) for name, time in times.items()} | {"device": device}

    serve(round_of_work)
