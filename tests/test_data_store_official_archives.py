"""Official releases, from folders, archives and downloads: what they become, and what TFDS says."""

import hashlib
import http.server
import json
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from data_settings import data_settings
from local_server import serving
from releases import tar_voc, write_coco, write_voc, zip_coco
from tensorflow_datasets.object_detection import coco as tfds_coco
from tensorflow_datasets.object_detection import voc as tfds_voc

from retinanet_jax.data.annotations.class_names import COCO_CATEGORIES
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.store import official_archives as official
from retinanet_jax.data.store.array_record import TfdsSource, read_source_file
from retinanet_jax.data.store.coco_release import RELEASES, prepare_coco
from retinanet_jax.data.store.official_archives import ARCHIVES
from retinanet_jax.data.store.tfds_bridge import coco_features
from retinanet_jax.data.store.voc_release import RELEASES as VOC_RELEASES
from retinanet_jax.data.store.voc_release import prepare_voc, voc_features
from retinanet_jax.data.store.voc_source import VocSource
from retinanet_jax.runtime import download as download_lib
from retinanet_jax.runtime.download import DownloadError


@pytest.fixture(scope="module")
def folders(shared_dir, tmp_path_factory):
    return write_coco(shared_dir / "data/coco_sample", tmp_path_factory.mktemp("coco") / "folders")


@pytest.fixture(scope="module")
def archives(folders):
    return zip_coco(folders, folders.parent / "archives")


@pytest.fixture(scope="module")
def prepared(folders):
    """Prepared from folders."""
    return prepare_coco("2017", folders, folders.parent / "tfds", "skip")


def records(folder: Path) -> dict[str, list[bytes]]:
    """The bytes of the records, by file."""
    files = sorted(folder.glob("*.array_record-*"))
    return {file.name: ArrayRecordReader(str(file)).read_all() for file in files}


def split_sizes(folder: Path) -> dict[str, int]:
    splits = tfds.builder_from_directory(folder).info.splits
    return {name: split.num_examples for name, split in splits.items()}


def settings(name: str, root: Path) -> types.SimpleNamespace:
    return data_settings(name, root, root / "cache")


def test_archives_become_what_folders_become(prepared, archives, tmp_path):
    folder = prepare_coco("2017", archives, tmp_path, "skip")
    assert folder == tmp_path / "coco/2017/1.1.0"
    assert split_sizes(folder) == {"train": 24, "validation": 40, "test": 5}
    assert sorted(path.name for path in archives.iterdir()) == sorted(
        [
            f"{n}2017.zip"
            for n in ("train", "val", "test", "annotations_trainval", "image_info_test")
        ]
    )
    for split in ("train", "validation", "test"):
        ours, theirs = (TfdsSource(f, split, tmp_path) for f in (folder, prepared))
        assert [str(ours.record(i)) for i in range(len(ours))] == [
            str(theirs.record(i)) for i in range(len(theirs))
        ]
    truths = [(f / "ground_truth_train.json").read_bytes() for f in (folder, prepared)]
    assert truths[0] == truths[1]
    report = read_source_file(folder).report
    assert report.counts == {"box without area": 1}
    (name,) = report.names["box without area"]
    assert "annotations_trainval2017.zip/annotations/instances_train2017.json" in name


def test_a_test_split_has_images_and_no_objects(prepared):
    folder = prepared
    dataset = load_dataset(settings("coco", folder), "test")
    assert len(dataset.source) == 5 and dataset.categories == COCO_CATEGORIES
    assert all(dataset.source[i].boxes.shape == (0, 4) for i in range(5))
    truth = dataset.ground_truth()
    assert len(truth["images"]) == 5 and truth["annotations"] == []


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_index_beside_the_records_is_theirs(prepared, split, tmp_path, monkeypatch):
    folder = prepared
    source = TfdsSource(folder, split, tmp_path)
    read = source.read_index()
    monkeypatch.setattr(TfdsSource, "read_index", lambda self: pytest.fail("read again"))
    np.testing.assert_array_equal(source.index().ids, read.ids)
    np.testing.assert_array_equal(source.index().sizes, read.sizes)
    part = TfdsSource(folder, f"{split}[1:-2]", tmp_path)
    np.testing.assert_array_equal(part.index().ids, read.ids[1:-2])
    assert part.image_size(0) == part[0].image.shape[:2] and part.image_id(0) == part[0].image_id


def test_splits_that_are_there_or_named(archives, prepared, tmp_path):
    some = tmp_path / "some"
    some.mkdir()
    for name in ("val2017.zip", "annotations_trainval2017.zip"):
        shutil.copy(archives / name, some)
    folder = prepare_coco("2017", some, tmp_path / "a", "skip")
    assert split_sizes(folder) == {"validation": 40}
    with pytest.raises(DataError, match=r"train2017 nor images/train2017 nor train2017\.zip"):
        prepare_coco("2017", some, tmp_path / "b", "skip", splits=("validation", "train"))
    with pytest.raises(DataError, match="already exists without 'train'; delete it"):
        prepare_coco("2017", archives, tmp_path / "a", "skip", splits=("train",))
    folder = prepare_coco("2017", archives, tmp_path / "c", "skip", splits=("test",))
    assert split_sizes(folder) == {"test": 5}
    with pytest.raises(
        DataError, match="no split 'val'; use one or more of train, validation, test"
    ):
        prepare_coco("2017", archives, tmp_path / "c", "skip", splits=("val",))
    with pytest.raises(DataError, match=r"none: is not a folder"):
        prepare_coco("2017", tmp_path / "none", tmp_path / "d", "skip")
    (some / "val2017.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"val2017\.zip: cannot be read.*download it again"):
        prepare_coco("2017", some, tmp_path / "d", "skip")


def test_2014_is_the_same_by_another_name(shared_dir, tmp_path):
    root = write_coco(shared_dir / "data/coco_sample", tmp_path / "folders", "2014")
    archives = zip_coco(root, tmp_path / "archives", "2014")
    folder = prepare_coco("2014", archives, tmp_path / "tfds", "skip")
    assert folder == tmp_path / "tfds/coco/2014/1.1.0"
    assert split_sizes(folder) == {"train": 24, "validation": 40, "test": 5}
    dataset = load_dataset(settings("coco2014", tmp_path / "tfds"), "validation[:7]")
    assert len(dataset.source) == len(dataset.ground_truth()["images"]) == 7
    with pytest.raises(DataError, match=r"coco/2017; add --download.*--dataset=coco --source"):
        load_dataset(settings("coco", tmp_path / "tfds"), "validation")


def test_voc_from_archives_and_from_its_folder(tmp_path):
    root = write_voc(tmp_path / "folders")
    archives = tar_voc(root, tmp_path / "archives")
    sizes = {
        "2007": {"train": 1, "validation": 1, "test": 1},
        "2012": {"train": 1, "validation": 1},
    }
    for year in ("2007", "2012"):
        one = prepare_voc(year, root, tmp_path / "one", "strict")
        other = prepare_voc(year, archives, tmp_path / "other", "strict")
        assert split_sizes(one) == split_sizes(other) == sizes[year]
        for split in sizes[year]:
            pair = [VocSource(f, split, tmp_path).record(0) for f in (one, other)]
            assert str(pair[0]) == str(pair[1])
    (archives / "VOCtest_06-Nov-2007.tar").unlink()
    folder = prepare_voc("2007", archives, tmp_path / "third", "strict")
    assert list(split_sizes(folder)) == ["train", "validation"]


def test_features_are_those_of_tfds(monkeypatch, tmp_path):
    monkeypatch.setattr(tfds_coco, "tf", types.SimpleNamespace(int64=np.int64))
    for year in ("2014", "2017"):
        stock = tfds_coco.Coco(config=year, data_dir=tmp_path)
        ours = coco_features(COCO_CATEGORIES.names)
        assert type(ours) is type(stock.info.features)
        assert ours.to_json() == _with_names(stock.info.features).to_json()
        assert (stock.name, year, str(stock.version)) == RELEASES[year].name
        assert [split.name for split in stock.builder_config.splits] == list(RELEASES[year].splits)
    for year in ("2007", "2012"):
        stock = tfds_voc.Voc(config=year, data_dir=tmp_path)
        assert voc_features().to_json() == stock.info.features.to_json()
        assert (stock.name, year, str(stock.version)) == VOC_RELEASES[year].name


def _with_names(features):
    """TFDS's coco learns the names from the annotations while it writes."""
    features["objects"]["label"].names = COCO_CATEGORIES.names
    return features


def test_archives_are_those_of_tfds():
    checksums = Path(tfds.__file__).parent / "url_checksums"
    lines = [line for n in ("coco", "voc") for line in (checksums / f"{n}.txt").open()]
    stated = {url: (url, int(size), sha256) for url, size, sha256, _ in map(str.split, lines)}
    for archive in ARCHIVES.values():
        assert tuple(archive) == stated[archive.url]
        download_lib.check_url(archive.url, archive.sha256)
    needed = [p for r in (*RELEASES.values(), *VOC_RELEASES.values()) for p in r.splits.values()]
    assert {part.archive for parts in needed for part in parts} == set(ARCHIVES)


@pytest.fixture
def site(archives, monkeypatch):
    """A server of the archives, which cuts the first answer for train2017.zip short."""
    cut = ["train2017.zip"]

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            data = (archives / Path(self.path).name).read_bytes()
            asked = self.headers.get("Range", "bytes=0-")[len("bytes=") : -1]
            start = int(asked)
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("ETag", '"1"')
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            end = len(data) // 2 if Path(self.path).name in cut else len(data)
            cut.clear() if end < len(data) else None
            self.server.sent.append((Path(self.path).name, start))
            self.wfile.write(data[start:end])

        def log_message(self, *_):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download_lib, "_FIRST_WAIT_SECONDS", 0)
    with serving(Handler) as server:
        server.sent = []
        for path in archives.iterdir():
            data = path.read_bytes()
            url = f"http://127.0.0.1:{server.server_port}/zips/{path.name}"
            entry = official.Archive(url, len(data), hashlib.sha256(data).hexdigest())
            monkeypatch.setitem(ARCHIVES, path.name, entry)
        yield server


def test_what_is_missing_is_downloaded(site, archives, tmp_path):
    root = tmp_path / "new"
    folder = prepare_coco("2017", root, tmp_path / "tfds", "skip", download=True)
    assert split_sizes(folder) == {"train": 24, "validation": 40}
    names = ["annotations_trainval2017.zip", "train2017.zip", "val2017.zip"]
    assert sorted(path.name for path in root.iterdir()) == names
    half = (archives / "train2017.zip").stat().st_size // 2
    assert sorted(site.sent) == sorted([*((name, 0) for name in names), ("train2017.zip", half)])
    prepare_coco("2017", tmp_path / "none", tmp_path / "tfds", "skip", download=True)
    assert len(site.sent) == 4 and not (tmp_path / "none").exists()  # prepared already
    prepare_coco("2017", root, tmp_path / "a", "skip", splits=("validation",), download=True)
    assert len(site.sent) == 4  # downloaded already
    with pytest.raises(DataError, match="already exists without 'train'; delete it"):
        prepare_coco("2017", root, tmp_path / "a", "skip", download=True)


def test_what_was_extracted_is_not_downloaded(site, folders, tmp_path):
    root = tmp_path / "new"
    shutil.copytree(folders / "val2017", root / "val2017")
    arguments = "2017", root, tmp_path / "tfds", "skip"
    folder = prepare_coco(*arguments, splits=("validation",), download=True)
    assert split_sizes(folder) == {"validation": 40}
    assert [name for name, _ in site.sent] == ["annotations_trainval2017.zip"]


def test_an_archive_of_another_size_and_one_of_other_content(site, archives, tmp_path):
    root = tmp_path / "new"
    root.mkdir()
    (root / "val2017.zip").write_bytes((archives / "val2017.zip").read_bytes()[:-1])
    arguments = "2017", root, tmp_path / "tfds", "skip"
    with pytest.raises(
        DataError, match=r"val2017\.zip: has \d+ bytes, but the official archive has \d+; delete"
    ):
        prepare_coco(*arguments, splits=("validation",), download=True)
    (root / "val2017.zip").unlink()
    ARCHIVES["val2017.zip"] = ARCHIVES["val2017.zip"]._replace(sha256="0" * 64)
    with pytest.raises(DownloadError, match="should begin with 000000"):
        prepare_coco(*arguments, splits=("validation",), download=True)
    assert not (root / "val2017.zip").exists() and not (tmp_path / "tfds").exists()


def test_ground_truth_is_written_as_json_writes_it(prepared, folders):
    folder = prepared
    truth = json.loads((folder / "ground_truth_validation.json").read_text())
    given = json.loads((folders / "annotations/instances_val2017.json").read_text())
    fields = "id", "image_id", "category_id", "bbox", "area", "iscrowd"
    expected = {a["id"]: {f: a[f] for f in fields} for a in given["annotations"]}
    assert {a["id"]: a for a in truth["annotations"]} == expected
    assert truth["categories"] == [
        {"id": i, "name": n}
        for i, n in zip(COCO_CATEGORIES.ids, COCO_CATEGORIES.names, strict=True)
    ]
