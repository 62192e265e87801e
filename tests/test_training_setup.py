"""The key of compiled functions: equal exactly where the programs are equal."""

import dataclasses

import jax
import numpy as np
from small import small_batch, small_config

from retinanet_jax.config.sections import OptimizerConfig
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.runtime.mesh import make_mesh, replicated, split_over_data
from retinanet_jax.training import setup
from retinanet_jax.training.run_checks import changed_fields
from retinanet_jax.training.setup import compilation_key, compile_functions
from retinanet_jax.training.step import focal_params

HOST = ("data", "pipeline", "augmentation", "train", "evaluation")
# By field, a value that is no constant of a key.
ARGUMENTS = {
    "seed": 1,
    "loss.gamma": 3.0,
    "loss.alpha": 0.5,
    "loss.star_beta": 0.7,
    "optimizer.learning_rate": 0.5,
    "optimizer.base_batch_size": 2,
    "optimizer.schedule": "cosine",
    "optimizer.decay_at": (0.5,),
    "optimizer.decay_factor": 0.3,
    "optimizer.warmup_steps": 2,
    "optimizer.warmup_factor": 0.5,
}
# Of the same sections, a value of each other field that is not its default.
KEPT = {
    "loss.classification": "focal_star",
    "loss.box": "giou",
    "loss.beta": 0.5,
    "loss.box_weight": 2.0,
    "loss.distribution_weight": 0.5,
    "loss.hard_examples": 64,
    "loss.hard_examples_iou": 0.6,
    "loss.negatives_per_positive": 3,
    "loss.normalizer": "image",
    "optimizer.name": "adamw",
    "optimizer.momentum": 0.5,
    "optimizer.nesterov": True,
    "optimizer.weight_decay": 0.5,
    "optimizer.decay": "kernels",
    "optimizer.gradient_clip": 1.0,
    "optimizer.backbone_factor": 0.5,
    "optimizer.stage_decay": 0.8,
    "optimizer.accumulate_steps": 2,
    "optimizer.ema_decay": 0.9,
}


def words(values: dict) -> dict:
    return {name.replace(".", "__"): value for name, value in values.items()}


def test_a_key_keeps_all_fields_but_these():
    """So that no two programs have one key, if the programs read none of these."""
    config = small_config(**words(ARGUMENTS | KEPT))
    # All fields of these sections differ from their defaults.
    defaults = dataclasses.replace(config, seed=0, loss=LossConfig(), optimizer=OptimizerConfig())
    sections = dataclasses.asdict(config.loss) | dataclasses.asdict(config.optimizer)
    assert len(changed_fields(defaults, config)) == len(ARGUMENTS | KEPT) == 1 + len(sections)
    key = compilation_key(config)
    assert set(changed_fields(config, key)) == ARGUMENTS.keys()
    names = [field.name for field in dataclasses.fields(key)]
    assert tuple(name for name in names if getattr(key, name) is None) == HOST
    whole = set(names) - {*HOST, "seed", "loss", "optimizer"}
    assert all(getattr(key, name) is getattr(config, name) for name in whole)
    assert compilation_key(key) == key


def test_configs_that_differ_on_the_host_alone_have_one_key():
    host = {"train__steps": 9, "train__log_every": 7, "data__tile": 64, "evaluation__limit": 3}
    fields = host | words(ARGUMENTS)
    assert compilation_key(small_config(**fields)) == compilation_key(small_config())


def test_no_program_reads_what_a_key_leaves_out(monkeypatch):
    """Reading a section that is None is an error; other fields would be constants of a program."""
    monkeypatch.setattr(
        setup, "compilation_key", lambda c: dataclasses.replace(c, **dict.fromkeys(HOST))
    )
    star = {"loss__classification": "focal_star", "optimizer__accumulate_steps": 2}
    plain, other = (programs(small_config(**star, **fields)) for fields in ({}, words(ARGUMENTS)))
    assert plain == other
    assert plain != programs(small_config(**star, optimizer__momentum=0.5))


def programs(config) -> list[str]:
    """The lowered functions of a config."""
    mesh = make_mesh(jax.devices()[:1])
    functions, rows = compile_functions(config, 5, mesh), split_over_data(mesh)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows), small_batch()
    )
    focal = jax.device_put(focal_params(config.loss), replicated(mesh))
    variables = functions.state_shapes.variables()
    lowered = (
        functions.step_fn.lower(functions.state_shapes, batch, focal, np.float32(0)),
        functions.measure_fn.lower(variables, focal, batch),
    )
    return [program.as_text() for program in lowered]
