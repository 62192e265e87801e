"""The settings that load_dataset reads, without a whole config; a folder written as ArrayRecord."""

import types
from pathlib import Path

from retinanet_jax.config.data_section import ShapesConfig
from retinanet_jax.data.folder import FolderSettings
from retinanet_jax.data.store.prepare_folder import prepare_folder


def data_settings(name: str, root="", cache_dir="", **fields) -> types.SimpleNamespace:
    """The fields of config.DataConfig; evaluation is on 'val' of a folder, else 'validation'."""
    values = {
        "name": name,
        "root": str(root),
        "layout": "auto",
        "val_share": 0.1,
        "exif": "auto",
        "cache_dir": str(cache_dir),
        "classes": (),
        "repeat_threshold": None,
        "tile": None,
        "tile_overlap": 0.2,
        "train_split": "train",
        "eval_split": "val" if name == "folder" else "validation",
        "annotations": "",
        "on_error": "strict",
        "shapes": ShapesConfig(image_size=(64, 96), num_train=40, num_eval=10, seed=3),
    }
    return types.SimpleNamespace(**values | fields)


def as_array_record(root: Path, split: str, data_dir: Path, on_error: str = "strict") -> Path:
    """One split of a folder, prepared as ArrayRecord."""
    settings = FolderSettings(
        str(root), str(data_dir), train_split=split, eval_split=split, on_error=on_error
    )
    return prepare_folder(settings, data_dir)
