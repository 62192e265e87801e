"""The flags --model and --step of commands that use a trained detector."""

import argparse
import sys


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """--model and --step."""
    parser.add_argument(
        "--model", required=True, help="workdir of a run; or a RetinaNet: file, URL, hf:// address"
    )
    parser.add_argument(
        "--step", type=int, help="checkpoint of the workdir; default: the best, else the latest"
    )


def add_workdir_arguments(parser: argparse.ArgumentParser) -> None:
    """--model, here only the workdir of a run, and --step."""
    # --workdir is the flag of `train` for the same folder.
    parser.add_argument("--model", "--workdir", required=True, help="workdir of a run")
    parser.add_argument(
        "--step", type=int, help="of the checkpoint; default: the best, else the latest"
    )


def read_model(arguments: argparse.Namespace):
    """The network that the flags name, as inference/predict.py::Trained; prints which checkpoint.

    Raises:
        CheckpointError, WeightsError: there is no detector at --model.
    """
    from absl import logging

    from retinanet_jax.inference.predict import read_trained

    logging.set_verbosity(logging.ERROR)  # Orbax warns of files that it does not need

    def log(line: str) -> None:
        print(line, file=sys.stderr)

    return read_trained(arguments.model, arguments.step, log)
