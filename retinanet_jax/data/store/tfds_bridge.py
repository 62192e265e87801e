"""Replaces the few uses of TensorFlow in TFDS while it writes; all of them are in this module.

TFDS 4.9 reads and writes ArrayRecord without TensorFlow as long as a split can be shuffled in
memory. Larger splits spill to a thousand files by `tf.io.gfile`; Python's files replace it here.
"""

import contextlib
import errno
import os
import resource
import threading
import types
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_metadata, registered, shuffle

from retinanet_jax.data.data_errors import DataError

# The shuffler opens this many files, and this process a few more.
_FILES_NEEDED = shuffle.BUCKETS_NUMBER + 100
# TFDS would hold 1000 MiB of records in memory before it spills.
BUFFER_BYTES = 256 << 20
_LOCK = threading.RLock()


class _NeverRaisedError(Exception):
    """Replaces tf.errors.ResourceExhaustedError: Python's files raise OSError."""


def _open(path, mode: str):
    try:
        return open(path, mode)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        what = f"too many open files: shuffling a large dataset needs {_FILES_NEEDED}"
        raise DataError("open files", path, "", what, f"ulimit -n {_FILES_NEEDED}") from error


_STAND_IN = types.SimpleNamespace(
    io=types.SimpleNamespace(
        gfile=types.SimpleNamespace(GFile=_open, exists=os.path.exists, remove=os.remove)
    ),
    errors=types.SimpleNamespace(ResourceExhaustedError=_NeverRaisedError),
)


@contextlib.contextmanager
def without_tensorflow() -> Iterator[None]:
    """Lets TFDS shuffle any amount of records without TensorFlow, in the same order.

    A split over BUFFER_BYTES opens a thousand files at once: the process's limit is raised as far
    as it may be. DataError where that is not enough.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _FILES_NEEDED:
        wanted = _FILES_NEEDED if hard == resource.RLIM_INFINITY else min(hard, _FILES_NEEDED)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    with _LOCK:
        originals = shuffle.tf, shuffle.MAX_MEM_BUFFER_SIZE
        shuffle.tf, shuffle.MAX_MEM_BUFFER_SIZE = _STAND_IN, BUFFER_BYTES
        try:
            yield
        finally:
            shuffle.tf, shuffle.MAX_MEM_BUFFER_SIZE = originals


def make_builder(
    name: str,
    config: str,
    version: str,
    features: tfds.features.FeaturesDict,
    splits: dict[str, Iterator],
    description: str,
) -> type[tfds.core.GeneratorBasedBuilder]:
    """Returns a TFDS builder class of `name/config/version`, not registered with TFDS.

    Args:
      splits: examples of each split as (key, example) pairs; TFDS orders records by a hash of the
        key and the split's name.
    """
    with registered.skip_registration():

        class Builder(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version(version)
            BUILDER_CONFIGS = (
                tfds.core.BuilderConfig(name=config, version=version, description=description),
            )

            # TFDS would look for checksums and a README next to this module, with a package
            # (importlib_resources) that it does not declare.
            code_path = None

            @classmethod
            def get_metadata(cls) -> dataset_metadata.DatasetMetadata:
                return dataset_metadata.DatasetMetadata(
                    description=description, citation="", tags=[]
                )

            def _info(self) -> tfds.core.DatasetInfo:
                return tfds.core.DatasetInfo(
                    builder=self, description=description, features=features
                )

            def _split_generators(self, dl_manager) -> dict[str, Iterator]:
                return splits

            def _generate_examples(self):
                raise AssertionError("the splits are given as iterators")

    Builder.name = name
    return Builder


def coco_features(names: tuple[str, ...], oriented: bool = False) -> tfds.features.FeaturesDict:
    """Returns the features of TFDS `coco/2017`, for any category names.

    Args:
      oriented: adds 'image/orientation', an EXIF orientation.
    """
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "image/filename": tfds.features.Text(),
            "image/id": np.int64,
            **({"image/orientation": np.int64} if oriented else {}),
            "objects": tfds.features.Sequence(
                {
                    "id": np.int64,
                    "area": np.int64,
                    "bbox": tfds.features.BBoxFeature(),
                    "label": tfds.features.ClassLabel(names=list(names)),
                    "is_crowd": np.bool_,
                }
            ),
        }
    )
