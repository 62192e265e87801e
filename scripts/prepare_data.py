"""Prepares COCO or Pascal VOC, once, for training and evaluation; TensorFlow is not needed.

From archives as they come, or from what was extracted from them; with --download, what is missing
is downloaded into --source first, and goes on where it broke off if it is run again:

    python scripts/prepare_data.py --dataset=coco --source=~/coco --download
    python scripts/prepare_data.py --dataset=coco --source=~/coco --download --splits=validation
    python scripts/prepare_data.py --dataset=voc --source=~/voc --download

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
space of the pictures (20 GB for coco), the process less than 2 GB of memory.

What is written is read by --config=experiments/coco.py and experiments/voc.py with
--config.data.root=DATA_DIR, and by TFDS itself (tfds.data_source). A folder of your own needs no
preparation: experiments/folder.py prepares it when it is first used.

What TFDS has prepared elsewhere as ArrayRecord is read as it is. TFRecord, its default, has to be
rewritten once, to another DATA_DIR:

    python scripts/prepare_data.py --convert=~/tensorflow_datasets/coco/2017/1.1.0 --data_dir=NEW
"""

import sys
from pathlib import Path

from absl import app, flags, logging

from retinanet_jax.data.coco_release import prepare_coco
from retinanet_jax.data.convert import convert_tfrecord
from retinanet_jax.data.dataset import TFDS_DATA_DIR
from retinanet_jax.data.report import ON_ERROR, DataError
from retinanet_jax.data.sources import SOURCE_FILE, read_source_file
from retinanet_jax.data.voc import prepare_voc
from retinanet_jax.download import DownloadError

_PREPARE = {
    "coco": ((prepare_coco, "2017"),),
    "coco2014": ((prepare_coco, "2014"),),
    "voc": ((prepare_voc, "2007"), (prepare_voc, "2012")),
    "voc2007": ((prepare_voc, "2007"),),
    "voc2012": ((prepare_voc, "2012"),),
}

_DATASET = flags.DEFINE_enum("dataset", None, list(_PREPARE), "which data set")
_SOURCE = flags.DEFINE_string("source", None, "folder of the archives or extracted files")
_DOWNLOAD = flags.DEFINE_bool("download", False, "download missing archives into --source first")
_SPLITS = flags.DEFINE_list(
    "splits", [], "prepare only these (train, validation, test); by default all that are there"
)
_CONVERT = flags.DEFINE_string("convert", None, "folder that TFDS prepared as TFRecord")
_DATA_DIR = flags.DEFINE_string("data_dir", TFDS_DATA_DIR, "TFDS data directory, written to")
_ON_ERROR = flags.DEFINE_enum(
    "on_error",
    "skip",
    ON_ERROR,
    "what to do with a faulty image or object: COCO's train2017 has boxes without width or height, "
    "so they are skipped, with a list of what and how many at the end; strict stops with that list",
)


def main(_):
    logging.set_verbosity(logging.WARNING)  # TFDS tells every file that it has written
    data_dir = Path(_DATA_DIR.value).expanduser()
    try:
        if _CONVERT.value:
            print(f"prepared: {convert_tfrecord(Path(_CONVERT.value).expanduser(), data_dir)}")
        elif _DATASET.value and _SOURCE.value:
            _prepare(data_dir)
        else:
            raise app.UsageError("give --dataset and --source, or --convert")
    except (DataError, DownloadError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; a download goes on where it broke off if the command is run again")


def _prepare(data_dir: Path) -> None:
    for prepare, year in _PREPARE[_DATASET.value]:
        folder = prepare(
            year,
            Path(_SOURCE.value).expanduser(),
            data_dir,
            _ON_ERROR.value,
            splits=tuple(_SPLITS.value),
            download=_DOWNLOAD.value,
        )
        stored = read_source_file(folder)  # also where it was prepared before
        if stored and stored.report.total:
            print(stored.report.notes(_DATASET.value, folder / SOURCE_FILE))
        print(f"prepared: {folder}")


if __name__ == "__main__":
    app.run(main)
