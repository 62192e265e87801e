"""Prepare COCO or Pascal VOC, once, for training and evaluation; TensorFlow is not needed.

From archives as they come, or from what was extracted from them; with --download, what is missing
is downloaded into --source first, and goes on where it broke off if it is run again:

    retinanet-jax prepare --dataset=coco --source=~/coco --download
    retinanet-jax prepare --dataset=coco --source=~/coco --download --splits=validation
    retinanet-jax prepare --dataset=voc --source=~/voc --download

    --dataset  what --source holds                          written to DATA_DIR/    downloads
    coco       train2017.zip, val2017.zip,                  coco/2017                 20.4 GB
               annotations_trainval2017.zip, or train2017/,
               val2017/, annotations/
    coco2014   likewise, of 2014                            coco/2014                 20.4 GB
    voc        VOCtrainval_06-Nov-2007.tar,                 voc/2007, voc/2012         2.9 GB
               VOCtest_06-Nov-2007.tar,
               VOCtrainval_11-May-2012.tar, or VOCdevkit/
    voc2007, voc2012   one of the years                     voc/2007 or voc/2012

Archives are read in place, not extracted. Splits whose files are not there are left out; COCO's
test splits are prepared if test2017.zip and image_info_test2017.zip are there, without objects.
Every image is decoded once, then the records are put in order and written: DATA_DIR needs the free
space of the images (20 GB for coco), the process less than 2 GB of memory.

What is written is read by --config=experiments/coco.py and experiments/voc.py with
--config.data.root=DATA_DIR, and by TFDS itself (tfds.data_source). A folder of your own needs no
preparation: experiments/folder.py prepares it when it is first used.

What TFDS has prepared elsewhere as ArrayRecord is read as it is. TFRecord, its default, has to be
rewritten once, to another DATA_DIR:

    retinanet-jax prepare --convert=~/tensorflow_datasets/coco/2017/1.1.0 --data_dir=NEW
"""

import argparse
import sys
from pathlib import Path

DATASETS = ("coco", "coco2014", "voc", "voc2007", "voc2012")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is prepared, and where to."""
    add = parser.add_argument
    add("--dataset", choices=DATASETS, help="which dataset")
    add("--source", type=Path, help="folder of the archives or extracted files")
    add("--download", action="store_true", help="download missing archives into --source first")
    add(
        "--splits",
        default="",
        help="prepare only these (train,validation,test); by default all that are there",
    )
    add("--convert", type=Path, help="folder that TFDS prepared as TFRecord")
    add(
        "--data_dir",
        type=Path,
        help="TFDS data directory, written to; default: TFDS's own, ~/tensorflow_datasets",
    )
    add(
        "--on_error",
        choices=("skip", "strict"),
        default="skip",
        help="what to do with a faulty image or object: COCO's train2017 has boxes without width "
        "or height, so they are skipped, with a list of what and how many at the end; strict stops "
        "with that list",
    )


def run(arguments: argparse.Namespace) -> None:
    """Converts or prepares."""
    from absl import logging

    from retinanet_jax.config.settings import ConfigError
    from retinanet_jax.data.dataset import TFDS_DATA_DIR
    from retinanet_jax.data.store.convert import convert_tfrecord
    from retinanet_jax.runtime.user_folders import expand_user

    logging.set_verbosity(logging.WARNING)  # TFDS tells every file that it has written
    data_dir = expand_user(arguments.data_dir or TFDS_DATA_DIR)
    try:
        if arguments.convert:
            print(f"prepared: {convert_tfrecord(arguments.convert.expanduser(), data_dir)}")
        elif arguments.dataset and arguments.source:
            _prepare(arguments, data_dir)
        else:
            raise ConfigError("give --dataset and --source, or --convert")
    except KeyboardInterrupt:
        sys.exit("interrupted; a download goes on where it broke off if the command is run again")


def _prepare(arguments: argparse.Namespace, data_dir: Path) -> None:
    from retinanet_jax.data.store.array_record import read_source_file
    from retinanet_jax.data.store.coco_release import prepare_coco
    from retinanet_jax.data.store.voc_release import prepare_voc

    work = {
        "coco": ((prepare_coco, "2017"),),
        "coco2014": ((prepare_coco, "2014"),),
        "voc": ((prepare_voc, "2007"), (prepare_voc, "2012")),
        "voc2007": ((prepare_voc, "2007"),),
        "voc2012": ((prepare_voc, "2012"),),
    }
    for prepare, year in work[arguments.dataset]:
        folder = prepare(
            year,
            arguments.source.expanduser(),
            data_dir,
            arguments.on_error,
            splits=tuple(filter(None, arguments.splits.split(","))),
            download=arguments.download,
        )
        stored = read_source_file(folder)  # also where it was prepared before
        if stored and stored.report.total:
            print(stored.report.notes(arguments.dataset))
        print(f"prepared: {folder}")
