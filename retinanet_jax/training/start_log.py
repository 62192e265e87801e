"""Logs what a run will do, before its first step."""

import jax
from jax.sharding import Mesh

from retinanet_jax.config.settings import Config
from retinanet_jax.core.resnet import stages_of
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.runtime.wording import counted
from retinanet_jax.training.run_checks import evaluation_warnings
from retinanet_jax.training.run_log import RunLog, log_lines
from retinanet_jax.training.setup import TrainingSetup


def log_start(
    log: RunLog,
    config: Config,
    train_set: Dataset,
    eval_set: Dataset,
    mesh: Mesh,
    setup: TrainingSetup,
    first: int,
) -> None:
    """Logs what the run will do, so that you notice a wrong setting early."""
    if first:
        log.message(f"resumes at step {first}, found in {log.workdir}")
    if first >= config.train.steps:
        log.message(
            f"config.train.steps={config.train.steps} is reached, so the run only evaluates; to "
            "train further, set a larger --config.train.steps; for a new run, use another workdir"
        )
    log_lines(log, f"{train_set.found}\n{eval_set.found}".splitlines())
    parameters = sum(x.size for x in jax.tree.leaves(setup.state.params))
    categories = train_set.categories
    names = ", ".join(categories.names[:8]) + (" ..." if categories.num_classes > 8 else "")
    classes = f"{categories.num_classes} class{'es' * (categories.num_classes > 1)}"
    device = mesh.devices.flat[0].device_kind
    stages = stages_of(setup.state.params["backbone"])
    frozen = len({stage for stage in stages.values() if stage < config.model.frozen_stages})
    log.message(
        f"{counted(len(train_set.source), 'training image')}, "
        f"{counted(len(eval_set.source), 'evaluation image')}, {classes}: {names}\n"
        f"{config.model.backbone}, norm {config.model.norm}, {frozen} frozen "
        f"stages, {parameters / 1e6:.1f} M parameters, {config.model.dtype}\n"
        f"{mesh.devices.size} x {device}, batch size {config.train.batch_size}, "
        f"{counted(config.train.steps, 'step')}; the first step compiles, unless the compilation "
        "is cached"
    )
    log_lines(log, evaluation_warnings(eval_set, config))
