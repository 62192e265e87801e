"""Train a detector, or resume a run.

    retinanet-jax train --data=FOLDER
    retinanet-jax train --data=FOLDER --epochs=20 --image_size=480x640 --name=cells
    retinanet-jax train --config=shapes
    retinanet-jax train --config=folder:small --data=FOLDER --config.optimizer.weight_decay=0.01

--data is a folder of images and annotations, whose layout is recognized. Network and image size fit
the device: a small ResNet-18 on a CPU, or a ResNet-50 on a GPU or TPU, from ImageNet weights. The
settings come from experiments/folder.py; --config selects another experiment, by name or file. The
run is written to runs/NAME, and its best checkpoint to runs/NAME/best. The same command resumes a
stopped run. Set any field of the config with --config.SECTION.FIELD=VALUE; config.json in the
workdir lists all fields. --helpfull lists further flags.
"""

import argparse

PASSES_ON = True


# By name; see config/short_settings.py.
SHORT_FLAGS = {
    "data": "folder of images and annotations, in any layout of docs/your_data.md",
    "epochs": "passes over the training images; default: chosen from the number of images",
    "steps": "number of updates, instead of --epochs",
    "batch_size": "images per update",
    "image_size": "pixels: 640 resizes images to fit a square; 480x640 sets the short and the long "
    "side of the images",
    "weights": "'imagenet' (the default), 'none', a name from `retinanet-jax weights`, a file, an "
    "address, or the workdir of a run",
    "lr": "learning rate",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The main flags; retinanet_jax.main reads them, and has more."""
    for name, text in SHORT_FLAGS.items():
        parser.add_argument(f"--{name}", help=text)
    parser.add_argument("--config", help="experiment: NAME or FILE.py, with :VARIANT")
    parser.add_argument("--name", help="name of the run; its workdir is runs/NAME")
    parser.add_argument("--workdir", help="folder of the run, instead of --name")


def run(arguments: argparse.Namespace) -> None:
    """Passes the flags to retinanet_jax.main."""
    from retinanet_jax import main

    names = ("config", "workdir", "name", *SHORT_FLAGS)
    given = {name: getattr(arguments, name) for name in names} | {"mode": "train"}
    flags = [f"--{name}={value}" for name, value in given.items() if value is not None]
    main.run(["retinanet-jax train", *flags, *arguments.passed_on])
