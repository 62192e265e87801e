"""Try a detector in the browser: drop an image or a video, move thresholds, see the boxes change.

    retinanet-jax serve --model=runs/shapes
    retinanet-jax serve --model=retinanet_resnet50_fpn_coco-eeacb38b.pth --port=9000

The command listens only on this machine and prints the address of the page, a Gradio app. The
sliders for score and NMS IoU do not run the network again. You can select classes, and download the
detections as JSON in COCO's results format or the drawn image as JPEG. Uploads are deleted after
two minutes, and the page loads nothing from other hosts. Programs can call it with gradio_client:

    Client("http://127.0.0.1:8000").predict(
        handle_file("photo.jpg"), 0.5, 0.5, [], api_name="/detect")

--host=0.0.0.0 opens the page to the network, without a password. docs/export.md has the app.py of a
Hugging Face Space.
"""

import argparse
from pathlib import Path

from retinanet_jax.cli.model_arguments import add_model_arguments, read_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, port and host."""
    add_model_arguments(parser)
    add = parser.add_argument
    add("--port", type=int, default=8000, help="default 8000; 0: any free port")
    add("--host", default="127.0.0.1", help="address to listen on; default 127.0.0.1")


def run(arguments: argparse.Namespace) -> None:
    """Loads the model and serves the page until Ctrl-C.

    Raises:
        DataError: the port is in use, or the extra `[serve]` is not installed.
        CheckpointError, WeightsError: there is no detector at --model.
    """
    import importlib.util

    from retinanet_jax.config.data_section import DataConfig
    from retinanet_jax.data.data_errors import DataError
    from retinanet_jax.inference.nms_sweep import NmsSweep
    from retinanet_jax.runtime.compilation_cache import keep_compilations
    from retinanet_jax.serving.page_server import open_port, serve

    if importlib.util.find_spec("gradio") is None:
        what, fix = "needs gradio", "pip install 'retinanet_jax[serve]'"
        raise DataError("serve", "retinanet-jax serve", "", what, fix)
    opened = open_port(arguments.host, arguments.port)
    trained = read_model(arguments)
    keep_compilations(DataConfig.cache_dir)  # a model must not name a folder of programs
    serve(NmsSweep(trained), Path(arguments.model).name or arguments.model, opened)
