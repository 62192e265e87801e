"""Members of zips and tars against the files they were made of."""

import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from retinanet_jax.data.archives import ArchivePath, FilePart, open_archive
from retinanet_jax.data.data_errors import DataError

FILES = {
    f"VOCdevkit/VOC2007/{folder}/{i:06d}.jpg": np.random.default_rng(i).bytes(3_000 + i)
    for folder in ("JPEGImages", "Annotations")
    for i in range(20)
}


def write_zip(path: Path, files: dict, compression=zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def write_tar(path: Path, files: dict, mode="w", prefix="") -> Path:
    with tarfile.open(path, mode) as file:
        for name, content in files.items():
            source = path.with_name("content")
            source.write_bytes(content)
            file.add(source, prefix + name)
    return path


@pytest.fixture(params=["stored", "deflated", "tar", "tar of ./"])
def archive(request, tmp_path):
    if request.param == "stored":
        return write_zip(tmp_path / "a.zip", FILES)
    if request.param == "deflated":
        return write_zip(tmp_path / "a.zip", FILES, zipfile.ZIP_DEFLATED)
    return write_tar(tmp_path / "a.tar", FILES, prefix="./" if "/" in request.param else "")


def test_members_are_found_and_read_like_files(archive):
    with open_archive(archive) as root:
        for name, content in FILES.items():
            path = root / name
            assert path.is_file() and not path.is_dir()
            assert path.read_bytes() == content
            assert path == root / str(Path(name).parent) / Path(name).name
            assert (path.name, path.stem) == (Path(name).name, Path(name).stem)
            assert path.parent.is_dir() and not path.parent.is_file()
            assert str(path) == f"{archive}/{name}"
            with path.open() as file:
                assert file.read(100) + file.read() == content
        for missing in ("VOCdevkit/VOC2012", "VOCdevkit/VOC2007/JPEG", "000001.jpg", "VOC"):
            assert not (root / missing).is_file() and not (root / missing).is_dir()
        with pytest.raises(FileNotFoundError, match=rf"is not in {archive.name}"):
            (root / "VOCdevkit/none.jpg").read_bytes()


def test_threads_read_what_one_reads(archive):
    with open_archive(archive) as root, ThreadPoolExecutor(8) as pool:
        names = list(FILES) * 10
        found = list(pool.map(lambda name: (root / name).read_bytes(), names))
    assert found == [FILES[name] for name in names]


def test_names_that_lead_out_are_only_names(tmp_path):
    files = {"../out.txt": b"x", "/etc/out.txt": b"x", "in.txt": b"y"}
    for path in (write_zip(tmp_path / "a.zip", files), write_tar(tmp_path / "a.tar", files)):
        with open_archive(path) as root:
            assert (root / "in.txt").read_bytes() == b"y"
    assert not list(tmp_path.parent.rglob("out.txt")) and not Path("/etc/out.txt").exists()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damage_inside_a_zip_is_an_os_error_that_names_it(tmp_path, compression):
    path = write_zip(tmp_path / "a.zip", {"a.jpg": bytes(5_000)}, compression)
    data = bytearray(path.read_bytes())
    data[36] ^= 0xFF
    path.write_bytes(data)
    with open_archive(path) as root, pytest.raises(OSError, match="damaged in the archive"):
        (root / "a.jpg").read_bytes()


def test_archives_that_are_none_or_cut_short(tmp_path):
    broken = [
        write_tar(tmp_path / "compressed.tar", FILES, "w:gz"),
        write_zip(tmp_path / "short.zip", FILES),
        tmp_path / "page.zip",
        tmp_path / "page.tar",
        tmp_path / "none.zip",
    ]
    broken[1].write_bytes(broken[1].read_bytes()[:-3_000])
    for page in broken[2:4]:
        page.write_text("<html>404</html>" * 100)
    for path in broken:
        with pytest.raises(DataError, match=rf"{path.name}: cannot be read"), open_archive(path):
            pass


def test_a_tar_that_is_cut_short(tmp_path):
    path = write_tar(tmp_path / "a.tar", FILES)
    whole = path.read_bytes()
    end = whole.rindex(list(FILES.values())[-1])
    path.write_bytes(whole[: end + 100])
    with pytest.raises((DataError, OSError), match=r"a\.tar"), open_archive(path) as root:
        (root / list(FILES)[-1]).read_bytes()


def test_archives_are_read_only(archive):
    with open_archive(archive) as root:
        assert isinstance(root, ArchivePath)
        with pytest.raises(ValueError, match="read only"):
            (root / next(iter(FILES))).open("wb")


def test_a_part_of_a_file_is_read_and_missing_bytes_are_an_error(tmp_path):
    path = tmp_path / "x.record"
    path.write_bytes(bytes(range(100)))
    part = FilePart(path, 90, 10)
    assert part.is_file() and part.parent == path and str(part) == f"{path}/bytes 90-99"
    assert part.read_bytes() == bytes(range(90, 100))
    path.write_bytes(bytes(99))
    with pytest.raises(OSError, match=r"is truncated in x\.record"):
        part.read_bytes()
    path.unlink()
    assert not part.is_file()
