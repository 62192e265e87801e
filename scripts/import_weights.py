"""Turns a public RetinaNet into a workdir of ours, and shows what it sees on one image.

    python scripts/import_weights.py --workdir=/tmp/retinanet \\
        --checkpoint=https://download.pytorch.org/models/retinanet_resnet50_fpn_coco-eeacb38b.pth
    python scripts/import_weights.py --checkpoint=model_final_5bd44e.pkl --workdir=/tmp/retinanet \\
        --image=photo.jpg

Reads torchvision's, detectron2's and MMDetection's RetinaNets (a path, an https URL or
hf://owner/name/file), says where each array went, and writes a checkpoint with the conventions of
that project. The workdir is one like those of training: Detector.from_checkpoint(WORKDIR) reads it.
"""

import dataclasses
import sys
from pathlib import Path

import cv2
import jax.numpy as jnp
from absl import app, flags, logging

from retinanet_jax.checkpoint import CheckpointError, Checkpoints
from retinanet_jax.config import to_json
from retinanet_jax.data.images import decode, read_file
from retinanet_jax.data.report import DataError
from retinanet_jax.predict import Detector
from retinanet_jax.train import TrainState
from retinanet_jax.visualize import draw_boxes
from retinanet_jax.weights import LoadedCheckpoint, WeightsError, load_checkpoint
from retinanet_jax.weights.sources import SOURCES
from retinanet_jax.workdir import WorkdirError, locked, write_whole

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "path, URL or hf:// address", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "where the import is written", required=True)
_SOURCE = flags.DEFINE_enum(
    "source",
    None,
    [recipe for source in SOURCES for recipe in source.recipes],
    "recipe, where keys do not tell; see retinanet_jax/recipes.py",
)
_RAW_LABELS = flags.DEFINE_bool(
    "raw_labels", False, "torchvision: keep its 91 class channels instead of COCO's 80 categories"
)
_MIN_SIDE = flags.DEFINE_integer("min_side", 0, "short side in pixels; 0: the recipe's, 800")
_MAX_SIDE = flags.DEFINE_integer("max_side", 0, "limit of the long side; 0: the recipe's, 1333")
_IMAGE = flags.DEFINE_string("image", "", "image to detect objects in")
_PICTURE = flags.DEFINE_string(
    "picture", "", "where it is drawn; '': detections.png in the workdir"
)
_SCORE = flags.DEFINE_float("score", 0.4, "lowest score that is told and drawn")


def main(_):
    logging.set_verbosity(logging.ERROR)  # Orbax warns of files that it does not need
    try:
        loaded = load_checkpoint(_CHECKPOINT.value, _SOURCE.value, raw_labels=_RAW_LABELS.value)
        loaded = with_sides(loaded, _MIN_SIDE.value, _MAX_SIDE.value)
        workdir = Path(_WORKDIR.value).expanduser()
        with locked(workdir):
            write(loaded, workdir)
        print(f"recipe: {loaded.recipe}\n{loaded.report.summary()}\nwritten: {workdir}")
        if _IMAGE.value:
            show(workdir, Path(_IMAGE.value), Path(_PICTURE.value or workdir / "detections.png"))
    except (WeightsError, CheckpointError, WorkdirError, DataError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def with_sides(loaded: LoadedCheckpoint, min_side: int, max_side: int) -> LoadedCheckpoint:
    """Another size of pictures in the config; 0 leaves a side as it is."""
    pipeline = loaded.config.pipeline
    sides = {"min_side": min_side or pipeline.min_side, "max_side": max_side or pipeline.max_side}
    pipeline = dataclasses.replace(pipeline, **sides)
    return loaded._replace(config=dataclasses.replace(loaded.config, pipeline=pipeline))


def write(loaded: LoadedCheckpoint, workdir: Path) -> None:
    """The checkpoint of step 0 of a workdir, and its config.json."""
    if loaded.categories is None:
        raise WeightsError(
            f"{_CHECKPOINT.value}: is a backbone; training takes it as it is: "
            f"--config.model.pretrained={_CHECKPOINT.value}"
        )
    state = TrainState(jnp.int32(0), **loaded.variables, opt_state=None, average=None)
    metadata = {
        "config": to_json(loaded.config),
        "names": list(loaded.categories.names),
        "ids": list(loaded.categories.ids),
    }
    checkpoints = Checkpoints(workdir / "checkpoints")
    checkpoints.save(0, state, metadata)
    checkpoints.close()
    write_whole(workdir / "config.json", metadata["config"])


def show(workdir: Path, path: Path, picture: Path) -> None:
    """Detects with what was written, so that the picture proves the workdir."""
    image = decode(read_file(path), str(path))
    detector = Detector.from_checkpoint(workdir)
    found = detector(image)
    kept = found.scores >= _SCORE.value
    boxes, scores, labels = (part[kept] for part in found[:3])
    names = detector.categories.names
    for box, score, label in zip(boxes, scores, labels, strict=True):
        print(f"{names[label]:16} {score:.3f}  x1 y1 x2 y2: {' '.join(f'{x:.1f}' for x in box)}")
    drawn = draw_boxes(image, boxes, labels, names, scores)
    if not cv2.imwrite(str(picture), cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)):
        raise DataError("picture", picture, "", "cannot be written", "name a .png or .jpg file")
    print(f"drawn: {picture}, {len(boxes)} of {len(found.scores)} detections")


if __name__ == "__main__":
    app.run(main)
