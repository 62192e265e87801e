"""Scans of folders, text of any encoding, many small files; layouts that fit one finder alone."""

import os

import pytest
from layout_writers import FURTHER_WRITERS, SMALL, WRITERS

from retinanet_jax.data.annotations import file_names, folder_files
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats.find_layout import FINDERS


def test_a_scan_ends_in_spite_of_links_and_leaves_out_what_is_no_file(tmp_path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "c" / "z.PNG").touch()
    (tmp_path / "a.txt").touch()
    (tmp_path / ".hidden.png").touch()
    for name in ("@eaDir", "#recycle", "$Recycle.Bin", "lost+found", "__MACOSX"):
        (tmp_path / name / "a.png").mkdir(parents=True)
        (tmp_path / name / "a.png" / "thumbnail.png").touch()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "b" / "up").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(tmp_path / "pipe.png")
    listings = list(folder_files.walk(tmp_path))
    assert [listing.files for listing in listings] == [["a.txt"], [], ["z.PNG"]]
    assert listings[2].images() == ["z.PNG"]
    assert not folder_files.list_folder(tmp_path / "nothing").files


def test_what_is_there_in_place_of_a_file_is_named(tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    with pytest.raises(DataError, match=r"a\.json: is a Git LFS pointer.*; run git lfs pull"):
        folder_files.parse_json(pointer, tmp_path / "a.json")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    assert file_names.explain_missing(tmp_path / "gone.png").startswith("the link")


def test_a_pipe_or_a_large_file_is_an_error_and_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * 100)
    for name in ("pipe", "nothing", "nul\0"):
        with pytest.raises(DataError):
            folder_files.read_bytes(tmp_path / name)
    with pytest.raises(DataError, match="is larger than 99 bytes"):
        folder_files.read_bytes(tmp_path / "large", limit=99)


def test_many_files_come_in_order_and_a_bad_one_as_an_error(tmp_path):
    paths = [tmp_path / f"{number}.txt" for number in range(300)]
    for number, path in enumerate(paths):
        path.write_text(str(number))
    paths[250].unlink()
    contents = list(folder_files.read_many(paths))
    assert isinstance(contents.pop(250), DataError)
    assert [int(content) for content in contents] == [n for n in range(300) if n != 250]


@pytest.mark.parametrize("name, write", {**WRITERS, **FURTHER_WRITERS}.items())
def test_each_layout_fits_its_own_finder_alone(tmp_path, name, write):
    write(tmp_path, SMALL)
    fitting = [finder for finder, find in FINDERS.items() if find(tmp_path) is not None]
    assert fitting == [finder for finder in FINDERS if name.startswith(finder)]
