"""COCO 2014 and 2017 from its official files, prepared as TFDS would prepare them."""

from pathlib import Path

from retinanet_jax.data.archives import AnyPath
from retinanet_jax.data.data_errors import DataError, Guard, Report
from retinanet_jax.data.formats.coco import read_annotations
from retinanet_jax.data.store.builders import write_coco
from retinanet_jax.data.store.official_archives import Part, Release, prepare_release


def _annotated(images: str, year: str) -> tuple[Part, ...]:
    annotations = f"annotations/instances_{images}.json"
    return _images(images), Part((annotations,), f"annotations_trainval{year}.zip")


def _unannotated(images: str) -> tuple[Part, ...]:
    annotations = f"annotations/image_info_{images}.json"
    return _images(images), Part((annotations,), f"image_info_{images}.zip")


def _images(images: str) -> Part:
    return Part((images, f"images/{images}"), f"{images}.zip")


RELEASES = {
    "2014": Release(
        ("coco", "2014", "1.1.0"),
        {
            "train": _annotated("train2014", "2014"),
            "validation": _annotated("val2014", "2014"),
            "test": _unannotated("test2014"),
            "test2015": _unannotated("test2015"),
        },
        usual=("train", "validation"),
    ),
    "2017": Release(
        ("coco", "2017", "1.1.0"),
        {
            "train": _annotated("train2017", "2017"),
            "validation": _annotated("val2017", "2017"),
            "test": _unannotated("test2017"),
        },
        usual=("train", "validation"),
    ),
}


def prepare_coco(
    year: str,
    root: Path,
    data_dir: Path,
    on_error: str,
    *,
    splits: tuple[str, ...] = (),
    download: bool = False,
) -> Path:
    """Prepares COCO as DATA_DIR/coco/YEAR/1.1.0, with the splits of TFDS.

    Args:
      year: '2014' or '2017'.
      root: the folder with the archives (train2017.zip, annotations_trainval2017.zip ...), or with
        the files extracted from them (train2017/, annotations/ ...).
      on_error: 'strict' raises errors; 'skip' leaves out the object or image (the official
        train2017 has a few boxes without width or height).
      splits, download: see `prepare_release`.

    Returns:
      The prepared folder; the report of what was skipped is in its source.json.

    Raises:
      DataError: the data is invalid; the message names the file, entry id, field and fix.
      DownloadError: a download failed.
    """
    release = RELEASES[year]

    def write(temporary: Path, found: dict[str, list[AnyPath]]) -> None:
        records, reports, categories = {}, [], None
        for split, (images, path) in found.items():
            read = read_annotations(path, images, on_error, annotated=split in release.usual)
            if categories not in (None, read.categories):
                fix = "use annotation files of one release"
                raise DataError(
                    "categories",
                    path,
                    "",
                    "its categories differ from those of the other files",
                    fix,
                )
            records[split], categories = read.images, read.categories
            reports.append(read.report)
        guard = Guard(on_error, Report.joined(reports))
        write_coco(temporary, release.name, records, categories, guard, origin=str(root.resolve()))

    return prepare_release(release, root, data_dir, write, splits=splits, download=download)
