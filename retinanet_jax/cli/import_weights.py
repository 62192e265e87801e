"""Turn public weights into a workdir, and show what they detect in an image.

    retinanet-jax import --checkpoint=torchvision/retinanet_resnet50_fpn --workdir=runs/imported
    retinanet-jax import --checkpoint=model_final_5bd44e.pkl --workdir=runs/imported \\
        --image=photo.jpg

--checkpoint is a RetinaNet of torchvision, detectron2 or MMDetection: a name from `retinanet-jax
weights`, a path, an https URL or hf://owner/name/file. The command prints how each array was used,
and writes a checkpoint with the conventions of that project. You can use the workdir like that of a
training run: Detector.from_checkpoint(WORKDIR) reads it.
"""

import argparse
import dataclasses
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is imported, where to, and the image that shows it."""
    add = parser.add_argument
    add("--checkpoint", required=True, help="name of public weights, path, https URL or hf://")
    add("--workdir", type=Path, required=True, help="folder for the imported model")
    add("--source", help="recipe, if the keys do not show it; see retinanet_jax/config/recipes.py")
    add(
        "--class_names",
        help="class names: comma-separated, a file with one name per line, or coco",
    )
    add("--ema", action="store_true", help="load the moving average (EMA) of the weights")
    add(
        "--raw_labels",
        action="store_true",
        help="torchvision: keep its 91 class channels instead of COCO's 80 categories",
    )
    add("--min_side", type=int, default=0, help="short side in pixels; 0: the recipe's, 800")
    add("--max_side", type=int, default=0, help="maximum of the long side; 0: the recipe's, 1333")
    add("--image", type=Path, help="image to detect objects in")
    add("--drawing", type=Path, help="drawn image to write; default: WORKDIR/detections.png")
    add("--score", type=float, default=0.4, help="lowest score to print and draw; default 0.4")


def run(arguments: argparse.Namespace) -> None:
    """Imports, prints the report, and draws the detections if an image is given."""
    from absl import logging

    from retinanet_jax.weights import load_checkpoint

    logging.set_verbosity(logging.ERROR)  # Orbax warns of files that it does not need
    workdir = arguments.workdir.expanduser()
    loaded = load_checkpoint(
        arguments.checkpoint,
        arguments.source,
        raw_labels=arguments.raw_labels,
        class_names=class_names_of(arguments.class_names),
        average=arguments.ema,
    )
    loaded = with_sides(loaded, arguments.min_side, arguments.max_side)
    write(loaded, workdir, arguments.checkpoint)
    print(f"recipe: {loaded.recipe}\n{loaded.report.summary()}\nwritten: {workdir}")
    if arguments.image:
        show(workdir, arguments.image, arguments.drawing, arguments.score)


def class_names_of(text: str | None) -> str | tuple[str, ...] | None:
    """The class names of the flag: 'coco', the lines of a file, or names between commas."""
    if text is None or text == "coco":
        return text
    path = Path(text).expanduser()
    names = path.read_text(encoding="utf-8").splitlines() if path.is_file() else text.split(",")
    return tuple(name.strip() for name in names if name.strip())


def with_sides(loaded, min_side: int, max_side: int):
    """The LoadedCheckpoint with another size of images; 0 leaves a side as it is.

    Raises:
        ConfigError: for invalid sides.
    """
    from retinanet_jax.config.settings import ConfigError

    pipeline = loaded.config.pipeline
    sides = {"min_side": min_side or pipeline.min_side, "max_side": max_side or pipeline.max_side}
    try:
        pipeline = dataclasses.replace(pipeline, **sides)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return loaded._replace(config=dataclasses.replace(loaded.config, pipeline=pipeline))


def write(loaded, workdir: Path, checkpoint: str) -> None:
    """Writes the checkpoint of step 0 of a workdir, and its config.json.

    Raises:
        WeightsError: the checkpoint is a backbone.
        WorkdirError: a run trains in the workdir.
    """
    import jax.numpy as jnp

    from retinanet_jax.config.settings import to_json
    from retinanet_jax.runtime.checkpoints import Checkpoints
    from retinanet_jax.runtime.workdir import locked, write_whole
    from retinanet_jax.training.train_state import TrainState
    from retinanet_jax.weights import WeightsError

    if loaded.categories is None:
        raise WeightsError(
            f"{checkpoint}: is a backbone, which needs no import; train from it with "
            f"--config.model.pretrained={checkpoint}"
        )
    state = TrainState(jnp.int32(0), **loaded.variables, opt_state=None, average=None)
    metadata = {
        "config": to_json(loaded.config),
        "names": list(loaded.categories.names),
        "ids": list(loaded.categories.ids),
    }
    with locked(workdir), Checkpoints(workdir / "checkpoints") as checkpoints:
        checkpoints.save(0, state, metadata)
        write_whole(workdir / "config.json", metadata["config"])


def show(workdir: Path, image: Path, drawn: Path | None, score: float) -> None:
    """Detects with what was written, and prints and draws the detections."""
    from retinanet_jax.inference.detector import Detector

    found = Detector.from_checkpoint(workdir)(image)
    kept = found[found.scores >= score]
    for box, value, _, name in kept:
        print(f"{name:16} {value:.3f}  x1 y1 x2 y2: {' '.join(f'{x:.1f}' for x in box)}")
    drawn = drawn or workdir / "detections.png"
    kept.plot(drawn)
    print(f"drawn: {drawn}, {len(kept)} of {len(found)} detections")
