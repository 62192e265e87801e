"""Run by test_data_pipeline_resume.py: some batches of one process, as a hash for each row.

python rows_of_a_process.py START STEPS PROCESS_INDEX PROCESS_COUNT
"""

import dataclasses
import hashlib
import itertools
import json
import sys

from image_data import ALL_ON, SMALL, Images

from retinanet_jax.data.dataset import Dataset
from retinanet_jax.data.mix import mixed
from retinanet_jax.data.pipeline.batch import HostBatch
from retinanet_jax.data.pipeline.input_pipeline import train_batches
from retinanet_jax.data.records import Categories

BATCH_SIZE = 4


def mixture(parts=((17, 1), (3, 2))) -> Dataset:
    """Datasets of (number of images, times an epoch), mixed."""
    categories = Categories(("a", "b", "c"), (1, 2, 3))
    return mixed(
        [
            (Dataset(Images(images), categories, dict, f"images {i}"), times)
            for i, (images, times) in enumerate(parts)
        ]
    )


def fingerprint(host: HostBatch) -> list[str]:
    """A hash of each row: its id and all of its arrays."""
    rows = zip(host.image_ids, *host.batch, strict=True)
    return [hashlib.sha256(b"".join(x.tobytes() for x in row)).hexdigest() for row in rows]


if __name__ == "__main__":
    start, steps, index, count = map(int, sys.argv[1:])
    settings = dataclasses.replace(SMALL, process_index=index, process_count=count)
    batches = train_batches(
        mixture(), batch_size=BATCH_SIZE, seed=5, settings=settings, augmentation=ALL_ON
    )
    hosts = itertools.islice(batches.iterate(start), steps)
    json.dump([fingerprint(host) for host in hosts], sys.stdout)
