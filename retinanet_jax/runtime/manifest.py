"""A list of a folder's files with their hashes, by which damage is found when it is read."""

import hashlib
import json
import os
from pathlib import Path

MANIFEST = "manifest.json"


def write_manifest(folder: Path) -> None:
    """Writes manifest.json into `folder`: size and SHA-256 of every file in a folder below it."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _hash(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent != folder
    }
    beside = folder / (MANIFEST + ".tmp")
    with beside.open("w") as file:
        json.dump({"files": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(folder / MANIFEST)


def find_damage(folder: Path) -> str:
    """What differs from the manifest, by the first file that does; '' if nothing.

    Without a manifest nothing can be said: ''.
    """
    path = folder / MANIFEST
    if not path.exists():
        return ""
    try:
        files = json.loads(path.read_text())["files"]
        listed = {name: (entry["bytes"], entry["sha256"]) for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    for name, (size, digest) in listed.items():
        try:
            found = (folder / name).stat().st_size
            if found != size:
                return f"{name} has {found} bytes instead of {size}"
            if _hash(folder / name) != digest:
                return f"{name} is not what was written (SHA-256)"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return ""


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
