"""Prepared datasets below a TFDS data directory."""

from collections.abc import Iterable
from pathlib import Path

from retinanet_jax.data.data_errors import DataError, Report
from retinanet_jax.data.store.array_record import read_source_file
from retinanet_jax.data.store.prepare_release import TFDS_DATA_DIR, download_size
from retinanet_jax.runtime.user_folders import expand_user


def find_prepared(root: str, name: str, dataset: str) -> Path:
    """Returns the latest prepared version of a TFDS dataset, such as 'coco/2017', below `root`.

    `root` is the TFDS data directory ('' is ~/tensorflow_datasets) or the prepared folder itself.
    `dataset` is what `retinanet-jax prepare` calls it.

    Raises:
      DataError: nothing is prepared; the message names the folder, the size of a download, the flag
        and the command.
    """
    data_dir = expand_user(root or TFDS_DATA_DIR)
    if (data_dir / "dataset_info.json").is_file():
        return data_dir
    versions = [p.parent for p in (data_dir / name).glob("*/dataset_info.json")]
    if versions:
        return max(versions, key=_version)
    gigabytes = download_size(dataset) / 1e9
    what = f"there is no prepared dataset in {data_dir / name}"
    fix = (
        f"add --download to download {gigabytes:.1f} GB of archives and prepare them there "
        f"({2 * gigabytes:.0f} GB of disk, archives and records), set data.root to a folder that "
        f"contains it, or prepare your archives: retinanet-jax prepare --dataset={dataset} "
        f"--source=FOLDER --data_dir={data_dir}"
    )
    raise DataError("missing data", data_dir, "", what, fix)


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else -1 for part in folder.name.split("."))


def stored_reports(folders: Iterable[Path]) -> tuple[str, Report]:
    """Returns notes and a report of what was skipped or changed when folders were prepared."""
    found = {folder: read_source_file(folder) for folder in folders}
    stored = {folder: file.report for folder, file in found.items() if file}
    notes = [report.notes(str(folder)) for folder, report in stored.items()]
    return "\n".join(filter(None, notes)), Report.joined(stored.values())
