"""A model ready to learn and to predict: functions compiled over a mesh, and its first state."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from retinanet_jax.config import Config
from retinanet_jax.data.batch import ArrayLike, Batch
from retinanet_jax.data.records import Categories
from retinanet_jax.mesh import replicated
from retinanet_jax.predict import PredictFn
from retinanet_jax.programs import Programs, make_programs
from retinanet_jax.train import Focal, TrainState, focal_of
from retinanet_jax.weights.pretrained import load_pretrained


class Learner(NamedTuple):
    """A model ready to learn: its compiled functions, and the state that they work on."""

    step_fn: Callable[[TrainState, Batch, Focal], tuple[TrainState, dict[str, ArrayLike]]]
    predict_fn: PredictFn
    focal: Focal
    state: TrainState  # or its shapes, of one that is restored


def make_learner(
    config: Config,
    categories: Categories,
    mesh: Mesh,
    say: Callable[[str], None],
    programs: Programs | None = None,
    restored: bool = False,
) -> Learner:
    """Builds the first state, with pretrained weights where the config names them.

    Args:
        config: of the run.
        categories: what is learned.
        mesh: of devices.
        say: takes what is to be told of the weights.
        programs: of this config, if there are any yet.
        restored: a checkpoint takes the place of the first state, whose shapes suffice.
    """
    programs = programs or make_programs(config, categories.num_classes, mesh)
    state = programs.state_like if restored else _first_state(programs, config, say)
    return Learner(
        step_fn=programs.step_fn,
        predict_fn=programs.predict_fn,
        focal=jax.device_put(focal_of(config.loss), replicated(mesh)),
        state=state,
    )


def _first_state(programs: Programs, config: Config, say: Callable[[str], None]) -> TrainState:
    if not config.model.pretrained:
        return programs.first_state_fn(config.seed)
    variables = programs.init_fn(config.seed)
    imported = load_pretrained(config.model.pretrained, variables, config.model, config.anchors)
    say(f"{config.model.pretrained}\n{imported.summary()}")
    return programs.first_state_fn(imported.variables)
