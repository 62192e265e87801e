"""Downloads from a server on this machine: cached, checked, and never half a file."""

import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from local_server import serving

from retinanet_jax.runtime import download
from retinanet_jax.weights.locations import default_cache_dir, fetch
from retinanet_jax.weights.weights_error import WeightsError

CONTENT = bytes(range(256)) * 12_000  # over two of the pieces that are read at once
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        route = self.path.split("?")[0]
        if route.startswith("/redirect-out"):
            self._head(302, {"Location": "http://example.com/weights.pth"})
        elif route == "/redirect-file":
            self._head(302, {"Location": "file:///etc/hostname"})
        elif route == "/missing.pth":
            self._head(404, {"Content-Length": "0"})
        else:
            self._send_content(route)

    def _send_content(self, route):
        length = {} if route == "/unknown-length" else {"Content-Length": str(len(CONTENT))}
        self._head(200, length)
        if route == "/cut.pth":
            self.wfile.write(CONTENT[: len(CONTENT) // 2])
        elif route == "/slow.pth":
            self.wfile.write(CONTENT[: len(CONTENT) // 2])
            self.server.half_sent.set()
            self.server.go_on.wait(20)
        else:
            self.wfile.write(CONTENT)

    def _head(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "_FIRST_WAIT_SECONDS", 0)
    with serving(_Handler) as server:
        server.requests, server.half_sent, server.go_on = [], threading.Event(), threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}"
        yield server
        server.go_on.set()


def _files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_path_is_returned_as_it_is(tmp_path):
    path = tmp_path / "weights.npz"
    path.write_bytes(CONTENT)
    assert fetch(path) == path
    assert fetch(str(path), sha256=DIGEST[:8]) == path
    with pytest.raises(WeightsError, match=r"weights\.npz.*SHA-256"):
        fetch(path, sha256="0" * 8)


def test_a_missing_path_and_a_folder_are_named(tmp_path):
    with pytest.raises(WeightsError, match=r"nothing\.pth: does not exist"):
        fetch(tmp_path / "nothing.pth")
    with pytest.raises(WeightsError, match="is a folder"):
        fetch(tmp_path)


def test_a_download_is_kept_and_used_again(server, tmp_path):
    first = fetch(f"{server.url}/some/model.pth?download=1", tmp_path)
    assert first.read_bytes() == CONTENT
    assert first.name == "model.pth"
    assert fetch(f"{server.url}/some/model.pth?download=1", tmp_path) == first
    assert len(server.requests) == 1
    assert _files(tmp_path) == ["model.pth", "model.pth.record.json"]


def test_two_files_of_one_name_have_two_places(server, tmp_path):
    assert fetch(f"{server.url}/a/m.pth", tmp_path) != fetch(f"{server.url}/b/m.pth", tmp_path)


@pytest.mark.parametrize("damage", [CONTENT[:-1], b"x" + CONTENT[1:], b""])
def test_a_damaged_cache_is_downloaded_again(server, tmp_path, damage):
    path = fetch(f"{server.url}/model.pth", tmp_path)
    path.write_bytes(damage)
    assert fetch(f"{server.url}/model.pth", tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize("record", [None, "[]", "{", '{"size": "x"}'])
def test_a_file_without_a_usable_record_is_downloaded_again(server, tmp_path, record):
    path = fetch(f"{server.url}/model.pth", tmp_path)
    record_path = path.with_name("model.pth.record.json")
    record_path.unlink() if record is None else record_path.write_text(record)
    fetch(f"{server.url}/model.pth", tmp_path)
    assert len(server.requests) == 2


def test_a_cut_download_leaves_no_file_under_the_final_name(server, tmp_path):
    with pytest.raises(WeightsError, match=r"cut\.pth.*bytes arrived"):
        fetch(f"{server.url}/cut.pth", tmp_path)
    assert _files(tmp_path) == ["cut.pth.part", "cut.pth.part.json"]


def test_an_unknown_length_is_allowed(server, tmp_path):
    assert fetch(f"{server.url}/unknown-length", tmp_path).read_bytes() == CONTENT


def test_the_hash_in_the_name_is_checked(server, tmp_path):
    good = f"{server.url}/retinanet-{DIGEST[:8]}.pth"
    assert any(letter in "abcdef" for letter in DIGEST[:8])
    assert fetch(good, tmp_path).read_bytes() == CONTENT
    with pytest.raises(WeightsError, match=r"retinanet-eeacb38b\.pth.*SHA-256"):
        fetch(f"{server.url}/retinanet-eeacb38b.pth", tmp_path)
    assert _files(tmp_path) == sorted(
        [os.path.basename(good), os.path.basename(good) + ".record.json"]
    )


def test_a_date_in_the_name_is_no_hash(server, tmp_path):
    assert fetch(f"{server.url}/retinanet-20200130.pth", tmp_path).read_bytes() == CONTENT


def test_a_given_hash_is_checked_in_the_cache_too(server, tmp_path):
    fetch(f"{server.url}/model.pth", tmp_path, sha256=DIGEST.upper())
    with pytest.raises(WeightsError, match="SHA-256"):
        fetch(f"{server.url}/model.pth", tmp_path, sha256="f" * 64)


@pytest.mark.parametrize("location", ["hf://owner/file", "hf://owner//file", "hf://owner/name/"])
def test_an_incomplete_hub_address_says_what_to_write(location):
    with pytest.raises(WeightsError, match="write hf://owner/name/file"):
        fetch(location)


@pytest.mark.parametrize(
    "location",
    [
        "http://example.com/a.pth",
        "ftp://example.com/a",
        "file:///etc/hostname",
        "https://",
        "s3://b/c",
    ],
)
def test_other_addresses_are_refused_before_anything_is_opened(location, tmp_path):
    with pytest.raises(WeightsError, match="only https://"):
        fetch(location, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("route", ["redirect-out", "redirect-file"])
def test_a_redirect_to_another_scheme_is_refused(server, tmp_path, route):
    with pytest.raises(WeightsError, match=r"only https://|not allowed"):
        fetch(f"{server.url}/{route}", tmp_path)
    assert _files(tmp_path) == []


def test_the_servers_answer_is_in_the_message(server, tmp_path):
    with pytest.raises(WeightsError, match=r"missing\.pth.*404"):
        fetch(f"{server.url}/missing.pth", tmp_path)
    assert _files(tmp_path) == []


def test_no_server_at_all(tmp_path):
    with pytest.raises(WeightsError, match="download failed"):
        fetch("http://127.0.0.1:9/a.pth", tmp_path)


def test_a_name_cannot_leave_the_cache(server, tmp_path):
    path = fetch(f"{server.url}/%2e%2e%2f%2e%2e%2fetc%2fpasswd", tmp_path / "cache")
    assert path.parent.parent == tmp_path / "cache"
    path = fetch(f"{server.url}/..%5c..%5cwindows", tmp_path / "cache")
    assert path.parent.parent == tmp_path / "cache"


def test_a_cache_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(WeightsError, match=r"model\.pth.*cache"):
        fetch(f"{server.url}/model.pth", tmp_path / "cache")


def test_a_killed_download_leaves_no_file_under_the_final_name(server, tmp_path):
    code = "import sys; from retinanet_jax.weights.locations import fetch; fetch(*sys.argv[1:])"
    arguments = [sys.executable, "-c", code, f"{server.url}/slow.pth", str(tmp_path)]
    child = subprocess.Popen(arguments, cwd=Path(__file__).parent.parent)
    assert server.half_sent.wait(300)
    deadline = time.monotonic() + 300
    while not any(path.stat().st_size for path in tmp_path.rglob("*.part")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert _files(tmp_path) == ["slow.pth.part", "slow.pth.part.json"]


def test_the_default_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("RETINANET_JAX_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "retinanet_jax"
    monkeypatch.setenv("RETINANET_JAX_CACHE", str(tmp_path / "own"))
    assert default_cache_dir() == tmp_path / "own"


def test_without_a_home_folder_the_message_says_what_to_set(monkeypatch):
    def expanduser(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("RETINANET_JAX_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", expanduser)
    with pytest.raises(WeightsError, match="set RETINANET_JAX_CACHE to a folder"):
        fetch("torchvision/retinanet_resnet50_fpn")
