"""Prepares COCO 2017 or Pascal VOC 2007+2012, once, from the extracted official archives.

    python scripts/prepare_data.py --dataset=coco --source=~/coco
    python scripts/prepare_data.py --dataset=voc --source=~/VOCdevkit

coco: the source holds annotations/, train2017/ and val2017/ (http://cocodataset.org); one of the
two splits is enough. voc: it holds VOC2007/ (trainval and test) and VOC2012/ (trainval). What is
written lies in --data_dir as TFDS lays it out (coco/2017, voc/0712) and is read by
--config=experiments/coco.py and experiments/voc.py, and by TFDS itself. A folder of your own needs
no preparation: experiments/folder.py prepares it when it is first used.
"""

import sys
from pathlib import Path

from absl import app, flags, logging

from retinanet_jax.data.builders import prepare_coco
from retinanet_jax.data.dataset import TFDS_DATA_DIR
from retinanet_jax.data.report import ON_ERROR, DataError
from retinanet_jax.data.sources import SOURCE_FILE, read_source_file
from retinanet_jax.data.voc import prepare_voc

_DATASET = flags.DEFINE_enum("dataset", None, ["coco", "voc"], "which data set", required=True)
_SOURCE = flags.DEFINE_string("source", None, "folder of the extracted archives", required=True)
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
    prepare = {"coco": prepare_coco, "voc": prepare_voc}[_DATASET.value]
    source, data_dir = Path(_SOURCE.value), Path(_DATA_DIR.value).expanduser()
    try:
        folder, _ = prepare(source, data_dir, _ON_ERROR.value)
    except DataError as error:
        sys.exit(f"error: {error}")
    stored = read_source_file(folder)  # also where it was prepared before
    if stored and stored.report.total:
        print(stored.report.notes(str(source), folder / SOURCE_FILE))
    print(f"prepared: {folder}")


if __name__ == "__main__":
    app.run(main)
