"""Writes a folder as ArrayRecord: a few large files are read faster over a network."""

import hashlib
from pathlib import Path
from typing import Any

from retinanet_jax.data.data_errors import DataError, Guard, Report
from retinanet_jax.data.folder import load_index, split_names
from retinanet_jax.data.store.builders import write_coco
from retinanet_jax.data.store.complete_folder import prepare_once
from retinanet_jax.runtime.user_folders import expand_user

FORMAT_VERSION = "1.2.0"


def prepare_folder(data_config: Any, data_dir: Path) -> Path:
    """Writes all splits of a folder to DATA_DIR/folder/NAME-FINGERPRINT/VERSION, once.

    Args:
      data_config: config.DataConfig or folder.FolderSettings.
      data_dir: the TFDS data directory; a changed folder is written to another path in it.

    Returns:
      The prepared folder, to which `data.root` may be set instead.

    Raises:
      DataError: the data is invalid; the message names the file, entry, field and fix.
    """
    root = expand_user(data_config.root)
    wanted = split_names(data_config)
    indices = {name: load_index(data_config, split) for split, name in wanted.items()}
    categories = {index.categories for index in indices.values()}
    if len(categories) != 1:
        what = "its splits have different classes"
        raise DataError("categories", root, "", what, "list all classes in the training split")
    digest = hashlib.blake2b(digest_size=8)
    for name, index in sorted(indices.items()):
        digest.update(f"{name} {index.key}\0".encode())
    name = ("folder", f"{_plain(root.resolve().stem)}-{digest.hexdigest()}", FORMAT_VERSION)

    def write(temporary: Path) -> None:
        reports = Report.joined(index.report for index in indices.values())
        write_coco(
            temporary,
            name,
            {split: list(index.records()) for split, index in indices.items()},
            categories.pop(),
            Guard(data_config.on_error, reports),
            origin=str(root.resolve()),
            oriented=True,
        )

    return prepare_once(data_dir, data_dir.joinpath(*name), write)


def _plain(name: str) -> str:
    """A name as TFDS allows it."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)
