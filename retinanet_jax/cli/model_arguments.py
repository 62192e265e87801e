"""The flags --model and --step of commands that use a trained detector."""

import argparse
import sys


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """--model and --step."""
    parser.add_argument(
        "--model",
        required=True,
        help="workdir of a run; or a RetinaNet: a name from `retinanet-jax weights`, a file, a URL "
        "or hf:// address; hf://OWNER/NAME is a detector that was pushed to the Hub",
    )
    parser.add_argument(
        "--step", type=int, help="step of the checkpoint; default: the best, or else the latest"
    )


def add_workdir_arguments(parser: argparse.ArgumentParser) -> None:
    """--model, here only the workdir of a run, and --step."""
    # --workdir is the flag of `train` for the same folder.
    parser.add_argument("--model", "--workdir", required=True, help="workdir of a run")
    parser.add_argument(
        "--step", type=int, help="step of the checkpoint; default: the best, or else the latest"
    )


def read_model(arguments: argparse.Namespace):
    """The network that the flags name, as inference/trained.py::Trained; prints which checkpoint.

    Raises:
        CheckpointError, WeightsError: there is no detector at --model.
    """
    from absl import logging

    from retinanet_jax.inference.hub import download_detector, is_hub_name
    from retinanet_jax.inference.trained import read_trained

    logging.set_verbosity(logging.ERROR)  # Orbax warns of files that it does not need

    def log(line: str) -> None:
        print(line, file=sys.stderr)

    repository = arguments.model.removeprefix("hf://")
    if repository != arguments.model and is_hub_name(repository):
        return download_detector(repository)
    return read_trained(arguments.model, arguments.step, log)
