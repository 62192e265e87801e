"""Plan a run on a chip that you do not have: memory, time, largest batch.

    retinanet-jax plan --config=coco --chip=v5e:2x4
    retinanet-jax plan --config=coco:r101 --chip=h200:8 --mode=both --canvas=800x1344
    retinanet-jax plan --data=FOLDER --classes=5 --chip=v6e:2x4 --image_size=640 --images=8

The chip's compiler compiles the programs of the run on this machine's CPU; none of them runs. For a
TPU, `pip install 'retinanet_jax[plan-tpu]'`; for a GPU, 'retinanet_jax[plan-gpu]'. Each compilation
takes minutes, and each canvas needs two, the second for the largest batch. The flags of `train` set
the config: --config, --data, --batch_size, --image_size, --config.SECTION.FIELD=VALUE.
"""

import argparse
from pathlib import Path

PASSES_ON = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Chip and programs. The flags of `train` are passed on."""
    add = parser.add_argument
    add("--config", help="experiment: NAME or FILE.py, with :VARIANT")
    add(
        *("--chip",),
        required=True,
        help="v5e:2x4 or v6e:XxY, a slice of TPUs; h100:8 or h200:N, GPUs of one host",
    )
    add("--mode", choices=("train", "predict", "both"), default="train", help="default: train")
    add("--canvas", metavar="HxW", help="plan only this canvas; default: all of the config's")
    add("--images", type=int, help="images per chip; default: the config's batch over the chips")
    add("--classes", type=int, help="number of classes; default: 80 for COCO, 20 for VOC, or read")
    add("--skip_largest", action="store_true", help="compile once per canvas, not twice")
    add("--check", action="store_true", help="also compile the largest batch")
    add("--json", type=Path, help="also write the rows to this file")


def run(arguments: argparse.Namespace) -> None:
    """Prints the table of the plan, and whether the run fits."""
    import functools
    import json
    import sys

    from retinanet_jax.cli.config_arguments import read_config
    from retinanet_jax.cli.outputs import check_writable, writing_to
    from retinanet_jax.config.canvas_flag import read_canvas
    from retinanet_jax.config.settings import ConfigError, from_config_dict
    from retinanet_jax.runtime.accelerator import assume_accelerator
    from retinanet_jax.runtime.workdir import write_whole
    from retinanet_jax.training.data_choices import without_data_choices
    from retinanet_jax.training.plan import chips, plan_table
    from retinanet_jax.training.plan.run_plan import RunPlanner, plan_run
    from retinanet_jax.training.plan.run_programs import MODES

    chips.hide_devices()
    if arguments.check and arguments.skip_largest:
        raise ConfigError("--check: leave out --skip_largest")
    if arguments.classes is not None and arguments.classes < 1:
        raise ConfigError(f"--classes: {arguments.classes} must be at least 1")
    if arguments.json:
        check_writable(arguments.json.parent)
    with assume_accelerator():
        config = without_data_choices(from_config_dict(read_config("plan", arguments)))
    canvas = read_canvas(arguments.canvas, config.pipeline) if arguments.canvas else None
    chip, mesh = chips.described_mesh(arguments.chip)
    modes = MODES if arguments.mode == "both" else (arguments.mode,)
    classes, datasets = arguments.classes or known_classes(config), {}
    if classes is None:
        datasets = read_datasets(config, modes)
        classes = datasets["train"].categories.num_classes
    log = functools.partial(print, file=sys.stderr)
    planner = RunPlanner(config, classes, chip, mesh, log, datasets)
    options = {"largest": not arguments.skip_largest, "check": arguments.check}
    rows = list(plan_run(planner, modes, canvas, arguments.images, **options))
    print(f"{plan_table.heading(planner)}\n\n{plan_table.table(rows)}\n")
    print(f"{plan_table.NOT_IN_THE_PLAN}\n{plan_table.canvas_note(rows, planner)}", end="")
    print(plan_table.verdict(rows, planner))
    if arguments.json:
        found = {"versions": plan_table.versions(chip), "rows": plan_table.records(rows)}
        with writing_to(arguments.json):
            write_whole(arguments.json, json.dumps(found, indent=2) + "\n")


def known_classes(config) -> int | None:
    """Number of classes of COCO and VOC, which need not be on this machine; else None."""
    known = {"coco": 80, "voc": 20}
    for name, count in known.items():
        if config.data.name.startswith(name) and not config.data.classes:
            return count
    return None


def read_datasets(config, modes: tuple[str, ...]) -> dict:
    """The training set by 'train', and by 'predict' the evaluation set where it is of use."""
    from retinanet_jax.data.dataset import load_dataset
    from retinanet_jax.data.mix import load_training_set
    from retinanet_jax.training.plan.run_programs import has_one_canvas

    datasets = {"train": load_training_set(config.data)}
    if "predict" in modes and has_one_canvas(config, "predict"):
        datasets["predict"] = load_dataset(config.data, config.data.eval_split)
    return datasets
