"""Evaluates a checkpoint and writes the results to its workdir."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from retinanet_jax.config.settings import Config, check_batch_size
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.dataset import Dataset, load_dataset
from retinanet_jax.inference.test_time_augmentation import (
    ONE_VIEW,
    PLAIN,
    ViewOptions,
    check_merge,
    views_of,
)
from retinanet_jax.inference.tiles import check_tiles
from retinanet_jax.runtime.checkpoints import Checkpoints
from retinanet_jax.runtime.mesh import make_mesh, to_each_device
from retinanet_jax.runtime.processes import from_first
from retinanet_jax.runtime.wording import counted
from retinanet_jax.runtime.workdir import disk_errors
from retinanet_jax.runtime.workdir_download import checkpoint_of, local_workdir
from retinanet_jax.training.config_of_evaluation import config_of_evaluation, measures_as_run
from retinanet_jax.training.evaluation import Evaluation, evaluate
from retinanet_jax.training.evaluation_files import write_evaluation
from retinanet_jax.training.loggers import open_loggers
from retinanet_jax.training.run_checks import check_same_classes, evaluation_warnings
from retinanet_jax.training.run_log import RunLog, log_lines
from retinanet_jax.training.step import focal_params
from retinanet_jax.training.validation_loss import (
    MeasuredPrediction,
    dataset_losses,
    losses_by_class,
    losses_by_level,
    make_measure_fn,
)
from retinanet_jax.weights.run_weights import choose_checkpoint, describe, read_variables


def evaluate_workdir(
    config: Config | Mapping[str, Any] | None,
    workdir: str | Path,
    step: int | None = None,
    *,
    flip: bool = False,
    scales: Sequence[float | int] = (1.0,),
    tile: int | str | None = "auto",
    overlap: float | str = "auto",
    merge: str = "nms",
) -> Evaluation:
    """Evaluates a checkpoint of `workdir` on `config.data.eval_split`.

    The network and its conventions come from the checkpoint. This is safe while a run trains in
    `workdir`.

    >>> evaluate_workdir({"postprocess.nms_iou": 0.6}, "runs/shapes")          # doctest: +SKIP

    Args:
        config: configuration with the data, the image size and the thresholds; or values by
            'SECTION.FIELD' that change those of the run; None: those of the run.
        workdir: workdir of a run: a folder, or an address in object storage.
        step: step of the checkpoint; None: the best, or the latest if none was evaluated.
        flip: whether to also detect in the mirrored images.
        scales: factors of the image size to detect at.
        tile: side of the tiles in pixels; None: whole images; 'auto': config.data.tile.
        overlap: overlap of neighbouring tiles, as a fraction of their side; 'auto':
            config.data.tile_overlap.
        merge: how to merge the detections of views or tiles: 'nms' or 'weighted'.

    Raises:
        CheckpointError: there is no such checkpoint, or the data has different classes.
        ConfigError: a value is invalid, a change has no effect on an evaluation, or tiles are
            combined with flip or scales.
    """
    check_merge(merge)
    views_of(flip, scales)
    options = ViewOptions(flip, tuple(scales), merge)
    with local_workdir(workdir, checkpoint_of(step)) as folder:
        return _evaluate_local(config, folder, step, options, tile, overlap)


def with_tiles(config: Config, tile: Any, overlap: Any, options: ViewOptions) -> Config:
    """Returns the config with this tile and overlap; 'auto' keeps the value of the config.

    Raises:
        ConfigError: a value is invalid, or tiles are combined with flip or scales.
    """
    tile = config.data.tile if tile == "auto" else tile
    overlap = config.data.tile_overlap if overlap == "auto" else overlap
    check_tiles(tile, overlap, options.views if tile is not None else PLAIN)
    data = dataclasses.replace(config.data, tile=tile, tile_overlap=overlap)
    return dataclasses.replace(config, data=data)


def _evaluate_local(
    config: Config | Mapping[str, Any] | None,
    workdir: Path,
    step: int | None,
    options: ViewOptions,
    tile: Any,
    overlap: Any,
) -> Evaluation:
    mesh = make_mesh()
    # Asked once, by one process: a run in training may add another checkpoint meanwhile.
    step, kind = from_first("evaluated step", choose_checkpoint(workdir, step)[1:])
    folder = workdir / "best" if kind == "best" else workdir
    checkpoints = Checkpoints(folder / "checkpoints")
    stored, categories = describe(checkpoints, step)
    before = config_of_evaluation(stored, config)
    config = with_tiles(before, tile, overlap, options)
    plain = (config, options) == (before, ONE_VIEW)
    kind_of_line = "eval" if plain else "eval_augmented"
    if not measures_as_run(stored, before):
        kind_of_line = "eval_other"
    check_batch_size(config.evaluation.batch_size, mesh.size, "config.evaluation.batch_size")
    dataset = load_dataset(config.data, config.data.eval_split)
    check_same_classes(categories, dataset.categories, workdir)
    model = build_model(config.model, categories.num_classes, config.anchors.anchors_per_location)
    variables = to_each_device(read_variables(checkpoints, step), mesh)
    # A run may be training here: no line is removed from its log (start_step None), and W&B and
    # MLflow, to which only one process can write, are left to it.
    active = jax.process_index() == 0
    names = {"tensorboard"} & set(stored.train.loggers) if active else ()
    loggers = open_loggers(names, workdir, None)
    with RunLog(workdir, None, step, active, loggers) as log, disk_errors(workdir):
        log.message(f"{kind} checkpoint, step {step}")
        log_lines(log, evaluation_warnings(dataset, config))
        measured = MeasuredPrediction(
            make_measure_fn(model, config, mesh), to_each_device(focal_params(config.loss), mesh)
        )
        found = evaluate_and_log(
            measured,
            variables,
            dataset,
            config,
            mesh,
            log,
            step,
            options=options,
            kind=kind_of_line,
        )
        log_lines(log, [dataset.notes])
        return found


def evaluate_and_log(
    measured: MeasuredPrediction,
    variables: dict[str, Any],
    dataset: Dataset,
    config: Config,
    mesh: Mesh,
    log: RunLog,
    step: int,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
    tables: bool = True,
    options: ViewOptions = ONE_VIEW,
    kind: str = "eval",
) -> Evaluation:
    """Evaluates, logs metrics and losses, and writes results and example images to the workdir.

    `measured` is used up. The losses are computed over all views. `kind` is the kind of the line in
    metrics.jsonl.
    """
    sides = f"short side {config.pipeline.min_side}, long side at most {config.pipeline.max_side}"
    images = f"{counted(len(dataset.source), 'image')} of {dataset.name}"
    log.message(f"evaluating step {step} on {images}; {sides} pixels")
    found = evaluate(measured, variables, dataset, config, mesh, options=options, on_batch=on_batch)
    levels, names = config.anchors.levels, dataset.categories.names
    parts = measured.recorded()
    by_level, by_class = losses_by_level(parts, config.loss), losses_by_class(parts, config.loss)
    found = found._replace(
        losses=dataset_losses(parts, config.loss),
        losses_by_level={f"P{n}": loss for n, loss in zip(levels, by_level, strict=True)},
        losses_by_class=dict(zip(names, by_class, strict=True)),
    )
    write_evaluation(found, dataset, config, log, step, tables=tables, kind=kind)
    return found
