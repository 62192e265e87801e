"""Prepare COCO, Pascal VOC or your own folder as TFDS ArrayRecord, without TensorFlow.

COCO and VOC are read from their archives or from extracted files. --download first downloads
missing archives into --source; an interrupted download resumes:

    retinanet-jax prepare --dataset=coco --source=~/coco --download
    retinanet-jax prepare --dataset=coco --source=~/coco --download --splits=validation
    retinanet-jax prepare --dataset=voc --source=~/voc --download

    --dataset  what --source holds                          written to DATA_DIR/    downloads
    coco       train2017.zip, val2017.zip,                  coco/2017                 20.4 GB
               annotations_trainval2017.zip, or train2017/,
               val2017/, annotations/
    coco2014   the same for 2014                            coco/2014                 20.4 GB
    voc        VOCtrainval_06-Nov-2007.tar,                 voc/2007, voc/2012         2.9 GB
               VOCtest_06-Nov-2007.tar,
               VOCtrainval_11-May-2012.tar, or VOCdevkit/
    voc2007, voc2012   only this year                       voc/2007 or voc/2012
    folder     images and annotations in any layout that    folder/NAME-FINGERPRINT
               docs/your_data.md lists

Archives are read in place. Splits with missing files are left out; COCO's test splits are prepared,
without objects, if test2017.zip and image_info_test2017.zip exist. Each image is decoded once.
DATA_DIR needs as much space as the images (20 GB for coco); the process needs less than 2 GB of
memory.

To read the result, use --config=coco or --config=voc with --config.data.root=DATA_DIR, or TFDS
itself (tfds.data_source). Your own folder is read in place and needs no preparation. ArrayRecord is
faster to read from remote disks; set --config.data.root to the path that is printed:

    retinanet-jax prepare --dataset=folder --source=FOLDER --data_dir=DATA_DIR

Datasets that TFDS has prepared as ArrayRecord are read as they are. TFRecord, the default of TFDS,
must be converted once, to another DATA_DIR:

    retinanet-jax prepare --convert=~/tensorflow_datasets/coco/2017/1.1.0 --data_dir=NEW
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

DATASETS = ("coco", "coco2014", "voc", "voc2007", "voc2012", "folder")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this command."""
    add = parser.add_argument
    add("--dataset", choices=DATASETS, help="dataset to prepare")
    add("--source", type=Path, help="folder of the archives or extracted files, or your own folder")
    add("--download", action="store_true", help="download missing archives into --source first")
    add(
        "--splits",
        default="",
        help="prepare only these (train,validation,test); default: all whose files exist",
    )
    add("--convert", type=Path, help="folder with a TFRecord dataset of TFDS, to convert")
    add(
        "--data_dir",
        type=Path,
        help="TFDS data directory to write to; default: ~/tensorflow_datasets, as in TFDS",
    )
    add(
        "--on_error",
        choices=("skip", "strict"),
        default="",
        help="what to do with an invalid image or object: skip, the default for COCO and VOC "
        "(train2017 has boxes without width or height), leaves it out and counts it; strict, the "
        "default for a folder, stops with a list of all",
    )


def run(arguments: argparse.Namespace) -> None:
    """Converts or prepares."""
    from absl import logging

    from retinanet_jax.config.settings import ConfigError
    from retinanet_jax.data.store.convert import convert_tfrecord
    from retinanet_jax.data.store.prepare_release import TFDS_DATA_DIR
    from retinanet_jax.runtime.user_folders import expand_user

    logging.set_verbosity(logging.WARNING)  # TFDS logs every file that it writes
    data_dir = expand_user(arguments.data_dir or TFDS_DATA_DIR)
    try:
        if arguments.convert:
            print(f"prepared: {convert_tfrecord(arguments.convert.expanduser(), data_dir)}")
        elif arguments.dataset and arguments.source:
            _prepare(arguments, data_dir)
        else:
            raise ConfigError("set --dataset and --source, or --convert")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command resumes a download")


def _prepare(arguments: argparse.Namespace, data_dir: Path) -> None:
    from retinanet_jax.data.store.array_record import read_source_file

    for folder in _folders(arguments, data_dir):
        stored = read_source_file(folder)  # also of a folder that was prepared before
        if stored and stored.report.total:
            print(stored.report.notes(arguments.dataset))
        print(f"prepared: {folder}")


def _folders(arguments: argparse.Namespace, data_dir: Path) -> Iterator[Path]:
    from retinanet_jax.data.folder import FolderSettings
    from retinanet_jax.data.store.prepare_folder import prepare_folder
    from retinanet_jax.data.store.prepare_release import prepare_dataset

    source = arguments.source.expanduser()
    if arguments.dataset == "folder":
        if arguments.download or arguments.splits:
            sys.exit("--download and --splits are for COCO and Pascal VOC, not for a folder")
        cache = str(data_dir / "cache")
        on_error = arguments.on_error or "strict"
        yield prepare_folder(FolderSettings(str(source), cache, on_error=on_error), data_dir)
        return
    splits = tuple(filter(None, arguments.splits.split(",")))
    on_error = arguments.on_error or "skip"
    download = arguments.download
    yield from prepare_dataset(
        arguments.dataset, source, data_dir, on_error, splits=splits, download=download
    )
