"""Try a detector in the browser: drop an image, move thresholds, see the boxes change.

    retinanet-jax serve --model=runs/shapes
    retinanet-jax serve --model=retinanet_resnet50_fpn_coco-eeacb38b.pth --port=9000

listens on this machine alone and prints the page's address. Score and NMS sliders act at once,
classes can be hidden, detections are downloaded as JSON in COCO's results format, the image as
PNG. Nothing is kept, and the page takes nothing from elsewhere. CompiledFunctions ask it, too:

    curl --data-binary @photo.jpg 'http://127.0.0.1:8000/detect?name=photo.jpg'

--host=0.0.0.0 opens it to the network; there is no password.
"""

import argparse
import os
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, port and host."""
    add = parser.add_argument
    add("--model", required=True, help="workdir of a run; or a RetinaNet: file, URL, hf:// address")
    add("--port", type=int, default=8000, help="default 8000; 0: any that is free")
    add("--host", default="127.0.0.1", help="address to listen on; default 127.0.0.1")


def run(arguments: argparse.Namespace) -> None:
    """Loads the model and answers until Ctrl-C.

    Raises:
        DataError: the port is taken, or what `[serve]` installs is not there.
        CheckpointError, WeightsError: there is no detector at --model.
    """
    from absl import logging

    from retinanet_jax.data.data_errors import DataError
    from retinanet_jax.inference.predict import read_trained
    from retinanet_jax.runtime.compilation_cache import keep_compilations

    try:
        from retinanet_jax.serving.server import open_port, serve
        from retinanet_jax.serving.sweep import IouSweep
    except ModuleNotFoundError as error:
        what, fix = f"needs {error.name}", "pip install 'retinanet_jax[serve]'"
        raise DataError("serve", "retinanet-jax serve", "", what, fix) from error

    logging.set_verbosity(logging.ERROR)  # Orbax warns of files that it does not need
    opened = open_port(arguments.host, arguments.port)
    trained = read_trained(arguments.model)
    keep_compilations(trained.config.data.cache_dir)
    name = Path(arguments.model).name or arguments.model
    if serve(IouSweep(trained), name, arguments.host, opened):
        # A compilation runs to its end, and Python would wait for it; there is nothing to save.
        sys.stdout.flush()
        os._exit(0)
