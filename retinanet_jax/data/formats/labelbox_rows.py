"""The data rows of Labelbox's exports of both versions, their labels and splits."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retinanet_jax.data.annotations import annotation_fields as fields
from retinanet_jax.data.annotations.folder_files import (
    ascii_head,
    has_line,
    parse_json,
    read_json_lines,
    read_text,
)
from retinanet_jax.data.annotations.split_names import split_kind
from retinanet_jax.data.data_errors import DataError, Guard

SEVERAL = "data rows with several labels, the selected or latest one used"
_SPLITS = ("data_split", "split")
_SPLIT_FIELD = re.compile(rb'"(data_split|split|Data Split)"\s*:\s*"|:\s*"split"')
_EXPORT = "export the annotations again"


def may_have_splits(path: Path) -> bool:
    """Returns whether the text of a file has a split of a data row, without parsing it."""
    return has_line(path, _SPLIT_FIELD)


def read_rows(path: Path, guard: Guard) -> Iterator[tuple[str, dict]]:
    """Yields ('line 1', data row) and so on, in the form of export v2, without bad lines.

    The guard collects the errors of bad lines.

    Raises:
      DataError: the file cannot be read.
    """
    older: dict[Any, tuple[str, dict]] = {}
    for where, row in _entries(path):
        with guard:
            if not isinstance(row, dict):
                shown = f"not JSON ({row})" if isinstance(row, Exception) else fields.short(row)
                raise DataError("data row", path, where, f"is {shown}", _EXPORT)
            if "Label" not in row:
                fields.field(row, "data_row", path, where)
                yield where, row
                continue
            # Version 1 has an entry for each label.
            new = _in_v2(row)
            key = row.get("DataRow ID") or row.get("External ID") or where
            _, first = older.setdefault(str(key), (where, new))
            if first is not new:
                first["projects"][""]["labels"] += new["projects"][""]["labels"]
    yield from older.values()


def _entries(path: Path) -> Iterator[tuple[str, Any]]:
    """The entries of a JSON list, or of lines; or one object that is on several lines."""
    head = ascii_head(path, 1 << 12)
    if not re.match(rb"[^\[{]*(\[|\{\s*\n)", head):
        yield from read_json_lines(path)
        return
    content = parse_json(read_text(path), path)
    if isinstance(content, list):
        yield from ((f"[{number}]", row) for number, row in enumerate(content))
    else:
        yield "data row", content


def _in_v2(row: dict) -> dict:
    """An entry of version 1 in the form of version 2."""
    names = {"id": "DataRow ID", "external_id": "External ID", "global_key": "Global Key"}
    annotations = row["Label"]
    skipped = annotations in (None, "Skip")
    if skipped or isinstance(annotations, list):  # the latter of a video
        annotations = {"frames": annotations} if annotations else {}
    label = {
        "annotations": annotations,
        "label_details": {"updated_at": row.get("Updated At") or row.get("Created At")},
        "performance_details": {"skipped": row.get("Skipped") or skipped},
    }
    data_row = {new: row.get(old) for new, old in names.items()}
    return {
        "data_row": data_row | {"row_data": row.get("Labeled Data")},
        "media_attributes": row.get("Media Attributes"),
        "projects": {"": {"labels": [label]}},
        "data_split": row.get("Data Split"),
    }


def part(entry: dict, name: str, path: Path, where: str, kind: type = dict) -> Any:
    """Returns a field that is an object or a list; an empty one if it is missing or null."""
    value = entry.get(name)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise DataError("wrong type", path, where, f"{name} is {fields.short(value)}", _EXPORT)
    return value


def label_of(row: dict, path: Path, where: str) -> tuple[dict | None, tuple[str, ...]]:
    """Returns the label of a data row and notes.

    The label is None if the row has none, or only skipped ones.

    Raises:
      DataError: the row is labelled in several projects, whose objects may be the same.
    """
    # The export of a model run has its copies of the labels, beside or instead of the projects'.
    for holders in (part(row, "projects", path, where), _runs(row, path, where)):
        labelled = {}
        for key in holders:
            holder = part(holders, key, path, where)
            labels = part(holder, "labels", path, where, list)
            done = [label for label in labels if not _is_skipped(label, path, where)]
            if done:
                labelled[key] = holder, done
        if len(labelled) > 1:
            names = " and ".join(
                str(holder.get("name") or key) for key, (holder, _) in labelled.items()
            )
            what = f"is labelled in several projects or model runs: {names}"
            raise DataError("several projects", path, where, what, "export one of them alone")
        for holder, done in labelled.values():
            return _best(holder, done, path, where), (SEVERAL,) * (len(done) > 1)
    return None, ()


def _runs(row: dict, path: Path, where: str) -> dict:
    """The model runs of a data row by their ids."""
    experiments = part(row, "experiments", path, where)
    runs = (part(part(experiments, key, path, where), "runs", path, where) for key in experiments)
    return {key: run for found in runs for key, run in found.items()}


def _is_skipped(label: Any, path: Path, where: str) -> bool:
    if not isinstance(label, dict):
        raise DataError("label", path, where, f"a label is {fields.short(label)}", _EXPORT)
    return bool(part(label, "performance_details", path, where).get("skipped"))


def _best(holder: dict, labels: list[dict], path: Path, where: str) -> dict:
    """The label that was selected, else a benchmark, else the one that was changed last."""
    selected = part(holder, "project_details", path, where).get("selected_label_id")

    def rank(label: dict) -> tuple[bool, bool, str]:
        details = part(label, "label_details", path, where)
        changed = str(details.get("updated_at") or details.get("created_at") or "")
        is_selected = selected is not None and label.get("id") == selected
        return is_selected, bool(details.get("is_benchmark_reference")), changed

    return max(labels, key=rank)


def split_of(row: dict, path: Path, where: str) -> str | None:
    """Returns 'train', 'val' or 'test'; None if it has none, or 'UNASSIGNED'.

    The split may be in the data row, the model run, or the metadata field 'split'.
    """
    holders = [row, part(row, "data_row", path, where), *_runs(row, path, where).values()]
    stated = [h.get(name) for h in holders if isinstance(h, dict) for name in _SPLITS]
    for field in part(row, "metadata_fields", path, where, list):
        if isinstance(field, dict) and field.get("schema_name", field.get("name")) == "split":
            stated.append(_option(field.get("value")))
    named = {str(value) for value in stated if value not in (None, "", "UNASSIGNED")}
    if not named:
        return None
    kinds = set(map(split_kind, named))
    if len(kinds) > 1 or "" in kinds:
        what = f"the split is {' and '.join(map(fields.short, sorted(named)))}"
        raise DataError("split", path, where, what, "write TRAINING, VALIDATION or TEST")
    return kinds.pop()


def _option(value: Any) -> Any:
    """The name of the option that a metadata field has: text, or a list with one object."""
    option = value[0] if isinstance(value, list) and len(value) == 1 else value
    return option.get("schema_name", option.get("name")) if isinstance(option, dict) else option
