"""COCO and Pascal VOC by the names of `data.name`: prepared from archives, or downloaded first."""

from collections.abc import Iterator
from pathlib import Path

from retinanet_jax.runtime.user_folders import expand_user

TFDS_DATA_DIR = "~/tensorflow_datasets"  # TFDS's own default
_YEARS = {
    "coco": ("2017",),
    "coco2014": ("2014",),
    "voc": ("2007", "2012"),
    "voc2007": ("2007",),
    "voc2012": ("2012",),
}


def prepare_dataset(
    name: str,
    source: Path,
    data_dir: Path,
    on_error: str,
    *,
    splits: tuple[str, ...] = (),
    download: bool = False,
) -> Iterator[Path]:
    """Prepares a dataset, year by year; the arguments are those of prepare_coco and prepare_voc.

    Yields:
      Each prepared folder.

    Raises:
      DataError: the data is invalid; the message names the file, field and fix.
      DownloadError: a download failed.
    """
    # Imported here: only preparing writes records by TFDS, whose import takes a second.
    from retinanet_jax.data.store.coco_release import prepare_coco
    from retinanet_jax.data.store.voc_release import prepare_voc

    prepare = prepare_coco if name.startswith("coco") else prepare_voc
    for year in _YEARS[name]:
        yield prepare(year, source, data_dir, on_error, splits=splits, download=download)


def download_size(name: str) -> int:
    """Returns the bytes of a dataset's public archives; the records need as many again."""
    from retinanet_jax.data.store import coco_release, voc_release
    from retinanet_jax.data.store.official_archives import ARCHIVES

    module = coco_release if name.startswith("coco") else voc_release
    archives = {
        part.archive
        for year in _YEARS[name]
        for split in module.RELEASES[year].usual
        for part in module.RELEASES[year].splits[split]
    }
    return sum(ARCHIVES[archive].size for archive in archives)


def download_dataset(name: str, root: str) -> None:
    """Downloads and prepares a dataset below a TFDS data directory, unless it is there already.

    Archives are kept in DATA_DIR/downloads/NAME, and an interrupted download resumes.

    Args:
      name: a `data.name`; others than COCO and VOC have nothing to download.
      root: `data.root`; '' is the default directory.

    Raises: as prepare_dataset.
    """
    if name in _YEARS:
        data_dir = expand_user(root or TFDS_DATA_DIR)
        source = data_dir / "downloads" / name
        source.mkdir(parents=True, exist_ok=True)
        for folder in prepare_dataset(name, source, data_dir, "skip", download=True):
            print(f"prepared: {folder}")
