"""Hashes of the files of a folder, to detect damage when it is read."""

import hashlib
import json
import os
from pathlib import Path

MANIFEST = "manifest.json"


def write_manifest(folder: Path) -> None:
    """Writes FOLDER/manifest.json: size and SHA-256 of every file in the folders below."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _hash(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent != folder
    }
    temporary = folder / (MANIFEST + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump({"files": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / MANIFEST)


def find_damage(folder: Path) -> str:
    """The first difference from the manifest, as text; '' if there is none, or no manifest."""
    path = folder / MANIFEST
    if not path.exists():
        return ""
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        listed = {name: (entry["bytes"], entry["sha256"]) for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} is not readable ({error})"
    for name, (size, digest) in listed.items():
        try:
            found = (folder / name).stat().st_size
            if found != size:
                return f"{name} has {found} bytes, expected {size}"
            if _hash(folder / name) != digest:
                return f"{name} has the wrong SHA-256"
        except OSError as error:
            return f"{name} is not readable ({error.strerror})"
    return ""


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
