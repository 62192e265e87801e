"""The sweep command on the smallest network, for tests: in this process or as another one."""

import argparse
import sys
from pathlib import Path

from retinanet_jax.cli import sweep

ROOT = Path(__file__).parent.parent
SMALL = [
    f"--config={ROOT}/tests/small.py",
    "--config.train.steps=2",
    "--config.train.checkpoint_every=1",
    "--config.data.shapes.num_eval=2",
    "--config.evaluation.batch_size=2",
    "--config.evaluation.example_images=0",
    "--config.postprocess.score_threshold=0.0",
]


def parse(*words: object) -> argparse.Namespace:
    """The parsed arguments of the command."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    sweep.add_arguments(parser)
    arguments, unknown = parser.parse_known_args([str(word) for word in words])
    arguments.passed_on = unknown
    return arguments


def run(*words: object) -> int:
    """Runs the command in this process; its exit code."""
    try:
        sweep.run(parse(*words))
    except SystemExit as ended:
        return ended.code
    return 0


def command(*words: object) -> list[str]:
    """The command as a process."""
    return [sys.executable, "-m", "retinanet_jax", "sweep", *(str(word) for word in words)]
