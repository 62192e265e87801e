"""Computes the length of a run from its number of training images, and a warm-up that fits."""

import dataclasses
import math

from retinanet_jax.config.settings import Config
from retinanet_jax.runtime.wording import counted

MOST_EVALUATIONS = 10  # of evaluate_every='auto'


def with_run_length(config: Config, num_images: int) -> tuple[Config, str]:
    """Returns `config` with numbers instead of 'auto', and a line for the log, or ''.

    train.steps is train.epochs times the number of images divided by the batch size, rounded up.
    With 'auto' for both, train.auto_steps has the number of epochs and the minimum number of
    updates. A warm-up that is as long as the run, or longer than a tenth of a run of computed
    length, is shortened to a tenth.

    Args:
        config: configuration of the run.
        num_images: number of training images in an epoch.
    """
    train, optimizer = config.train, config.optimizer
    steps, lines = train.steps, []
    if steps == "auto":
        steps, rule = _computed_steps(config, num_images)
        lines.append(rule)
        warmup_fits = optimizer.warmup_steps <= steps // 10
    else:
        warmup_fits = optimizer.warmup_steps < steps
    if not warmup_fits:
        lines.append(f"warm-up of {steps // 10} steps instead of {optimizer.warmup_steps}")
        optimizer = dataclasses.replace(optimizer, warmup_steps=steps // 10)
    evaluate_every = train.evaluate_every
    if evaluate_every == "auto":
        epoch = math.ceil(num_images / train.batch_size)
        evaluate_every = max(epoch, math.ceil(steps / MOST_EVALUATIONS))
        often = f"every {evaluate_every} steps" if evaluate_every > 1 else "after each step"
        when = f"{often} and " if evaluate_every < steps else ""
        lines.append(f"evaluates {when}at the end")
    # A stored number of epochs beside the steps would be a conflict when the config is read.
    length = {"steps": steps, "epochs": "auto", "evaluate_every": evaluate_every}
    train = dataclasses.replace(train, **length)
    return dataclasses.replace(config, train=train, optimizer=optimizer), "; ".join(lines)


def _computed_steps(config: Config, num_images: int) -> tuple[int, str]:
    """The number of updates, and the rule it follows from."""
    train = config.train
    epochs, least = (train.epochs, 1) if train.epochs != "auto" else train.auto_steps
    images = f"{counted(num_images, 'image')}, {train.batch_size} a step"
    steps = math.ceil(epochs * num_images / train.batch_size)
    if steps < least:
        return least, f"{least} steps: the minimum for {images} (config.train.auto_steps)"
    return steps, f"{steps} steps: {epochs:g} epochs of {images}"
