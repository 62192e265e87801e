"""Reads arrays of a checkpoint that Orbax wrote, without importing Orbax.

Orbax opens each array of the checkpoint four times, also those that are not wanted, and takes .2 s
to import: .6 s in all for the network of experiments/shapes.py, where this takes .1 s.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def read_arrays(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Top-level entries of a state in a folder that ocp.args.StandardSave has written.

    Returns:
        Nested dicts of NumPy arrays, also for tuples of the state. An entry that was None is None.

    Raises:
        KeyError: the state has no such entry; the message lists those that it has.
        OSError, ValueError: a file is missing or damaged.
    """
    import tensorstore

    metadata = json.loads((folder / "_METADATA").read_text(encoding="utf-8"))
    entries = [
        (tuple(str(part["key"]) for part in entry["key_metadata"]), entry["value_metadata"])
        for entry in metadata["tree_metadata"].values()
    ]
    stored = dict.fromkeys(path[0] for path, _ in entries)
    if missing := [name for name in names if name not in stored]:
        raise KeyError(f"has {', '.join(sorted(stored))} and no {', '.join(missing)}")
    opened, tree = [], {}
    for path, value in entries:
        if path[0] not in names:
            continue
        if value["skip_deserialize"]:
            _set(tree, path, None if value["value_type"] == "None" else {})
        else:
            opened.append((path, tensorstore.open(_spec(folder, path, metadata), read=True)))
    # All are read at the same time.
    reading = [(path, array.result().read()) for path, array in opened]
    for path, array in reading:
        _set(tree, path, array.result())
    return {name: tree[name] for name in names}


def _spec(folder: Path, path: Sequence[str], metadata: Mapping[str, Any]) -> dict[str, Any]:
    files, name = {"driver": "file", "path": f"{folder}/"}, ".".join(path) + "/"
    if metadata["use_ocdbt"]:
        store = {"driver": "ocdbt", "base": files, "path": name}
    else:
        store = files | {"path": f"{folder}/{name}"}
    return {"driver": "zarr3" if metadata["use_zarr3"] else "zarr", "kvstore": store}


def _set(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value
