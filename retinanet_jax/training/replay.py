"""Repeats one step of a run and splits its loss by pyramid level and image."""

import contextlib
import functools
from pathlib import Path

import jax
from flax import linen as nn
from jax.sharding import Mesh

from retinanet_jax.config.settings import Config, ConfigError, read_config_file
from retinanet_jax.core.anchors import anchors_for_image
from retinanet_jax.core.loss import LossParts, loss_parts
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.mix import load_training_set
from retinanet_jax.data.pipeline.batch import Batch, DroppedBoxes
from retinanet_jax.data.pipeline.prefetch import Batches
from retinanet_jax.runtime.checkpoints import Checkpoints
from retinanet_jax.runtime.mesh import fetch, for_this_process, make_mesh, prefetch_to_device
from retinanet_jax.training.accumulation import split_into_parts
from retinanet_jax.training.batch_targets import labels_by_part, normalizer
from retinanet_jax.training.divergence import describe_step, write_step_report
from retinanet_jax.training.loop import make_batches
from retinanet_jax.training.resolve_auto import print_first, resolve_auto
from retinanet_jax.training.run_checks import changed_fields
from retinanet_jax.training.setup import TrainingSetup, make_setup
from retinanet_jax.training.step import predict_and_assign
from retinanet_jax.training.train_state import TrainState


def replay_step(config: Config, workdir: Path, step: int) -> dict:
    """Runs step `step` again, on the same batch and from the same state, and reports on it.

    It starts from the newest checkpoint before the step, or from the first state, and repeats the
    steps in between. It writes only WORKDIR/replay/step_N/ (see `divergence.write_step_report`), so
    a run may train in the workdir at the same time.

    Args:
        config: configuration of the run. Changed settings are allowed and logged, for example to
            see whether the step is finite with float32 or with a lower learning rate.
        workdir: folder of the run.
        step: number of the step, from 1.

    Returns:
        The report of `describe_step`, and the loss of each pyramid level and each image before the
        update.
    """
    mesh = make_mesh()
    dataset = load_training_set(config.data)
    config, _ = resolve_auto(config, dataset, mesh, workdir=workdir)
    if config.optimizer.learning_rate == "auto":
        raise ConfigError(
            f"config.optimizer.learning_rate: 'auto', but {workdir / 'config.json'} has no rate; "
            "write that of the run"
        )
    if not 1 <= step <= config.train.steps:
        raise ConfigError(
            f"--replay={step}: not a step of the run; write 1 to {config.train.steps}"
        )
    setup = make_setup(config, dataset.categories, mesh, print_first, train_set=dataset)
    setup = _restored(setup, workdir, before=step)
    first = int(setup.state.step)
    if changes := _changes(config, workdir):
        print_first(changes)
    print_first(f"repeating steps {first + 1} to {step} of {workdir}")

    whole, own = (
        make_batches(dataset, config, settings, DroppedBoxes(warn=False))
        for settings in (config.pipeline, for_this_process(config.pipeline))
    )
    parts, values = _replay_to(setup, own, step, config, dataset.categories.num_classes, mesh)
    host = whole[step - 1]
    report = describe_step(step, values, whole.describe(step - 1), config)
    levels = [f"P{config.anchors.min_level + i}" for i in range(len(parts.class_loss))]
    report["levels"] = _rows(levels, parts, axis=1)
    report["losses_by_image"] = _rows(host.image_ids.tolist(), parts, axis=0)
    folder = workdir / "replay" / f"step_{step:06d}"
    if jax.process_index() == 0:
        write_step_report(folder, report, host.batch, dataset.categories.names)
    print_first(f"{format_report(report)}\nwritten: {folder}")
    return report


def _restored(setup: TrainingSetup, workdir: Path, before: int) -> TrainingSetup:
    """Returns the setup with the state of the newest checkpoint before a step, if any."""
    checkpoints = Checkpoints(workdir / "checkpoints")
    found = checkpoints.latest_step(before=before)
    if found is None:
        return setup
    return setup._replace(state=checkpoints.restore(setup.state, found))


def _replay_to(
    setup: TrainingSetup, batches: Batches, step: int, config: Config, num_classes: int, mesh: Mesh
) -> tuple[LossParts, dict[str, float]]:
    """Runs the steps before `step`; returns the parts of its loss and its metrics."""
    state, first = setup.state, int(setup.state.step)
    with contextlib.closing(
        prefetch_to_device(batches.iterate(first), lambda host: host.batch, mesh)
    ) as stream:
        for done in range(first, step - 1):
            state, _ = setup.step_fn(state, next(stream), setup.focal, setup.schedule(done))
        batch = next(stream)
    model = build_model(config.model, num_classes, config.anchors.anchors_per_location)
    split_loss = jax.jit(
        functools.partial(loss_by_level_and_image, model=model, config=config, mesh=mesh)
    )
    parts = fetch(split_loss(state, batch))
    _, metrics = setup.step_fn(state, batch, setup.focal, setup.schedule(step - 1))
    return parts, {name: float(value) for name, value in jax.device_get(metrics).items()}


def loss_by_level_and_image(
    state: TrainState, batch: Batch, *, model: nn.Module, config: Config, mesh: Mesh | None = None
) -> LossParts:
    """Returns the part of each pyramid level and image of a batch in the loss of `train_step`.

    A batch that the step processes in parts is processed in the same parts here: live batch norm
    sees one part at a time, and only one part needs memory.
    """
    parts = config.optimizer.accumulate_steps
    anchors = anchors_for_image(batch.images.shape[1:3], config.anchors)

    def losses_of(part: Batch, divisor: jax.Array | None) -> LossParts:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        predictions, targets, _ = predict_and_assign(
            variables, part, anchors, model=model, config=config, mesh=mesh
        )
        if divisor is None:
            divisor = divisor_of(targets.labels)
        return loss_parts(*predictions, anchors, targets, part.valid, config.loss, divisor)

    def divisor_of(labels: jax.Array) -> jax.Array:
        return normalizer(state.positives, labels, batch.valid, anchors, config.loss)[1]

    if parts == 1:
        return losses_of(batch, None)
    divisor = divisor_of(labels_by_part(anchors, batch, config, mesh))
    divided = split_into_parts((batch, divisor), parts)
    losses = jax.lax.map(lambda part: losses_of(*part), divided)
    # [part level image], with every parts-th image in a part, as [level image].
    return jax.tree.map(lambda x: x.transpose(1, 2, 0).reshape(len(anchors), -1), losses)


def _rows(names: list, parts: LossParts, axis: int) -> list[dict]:
    sums = {field: part.sum(axis).tolist() for field, part in parts._asdict().items()}
    return [
        {"name": name, **{field: column[i] for field, column in sums.items()}}
        for i, name in enumerate(names)
    ]


def format_report(report: dict) -> str:
    """Formats a report as text."""
    values, rates = report["values"], report["learning_rate"]
    norms = {name: value for name, value in values.items() if name.startswith("gradient_norm")}
    lines = [
        f"step {report['step']}: loss {values['loss']:.6g} (class {values['class_loss']:.6g}, "
        f"box {values['box_loss']:.6g}), {'skipped' if values['skipped'] else 'finite'}",
        *(f"{name}: {value:.6g}" for name, value in norms.items()),
        "learning rate: " + ", ".join(f"{value:.4g} {name}" for name, value in rates.items()),
        f"images: {report['images']}",
    ]
    for kind, rows in (("level", report["levels"]), ("image", report["losses_by_image"])):
        lines.append(f"{kind:>12} {'class loss':>12} {'box loss':>12} {'positives':>10}")
        lines += [
            f"{row['name']:>12} {row['class_loss']:12.6g} {row['box_loss']:12.6g} "
            f"{row['num_positives']:10.0f}"
            for row in rows
        ]
    return "\n".join(lines)


def _changes(config: Config, workdir: Path) -> str:
    """The settings that differ from those of the run, as lines; '' if there are none."""
    stored = workdir / "config.json"
    if not stored.exists():
        return ""
    changes = changed_fields(read_config_file(stored), config)
    return "\n".join(["warning: changed settings:", *changes.values()]) if changes else ""
