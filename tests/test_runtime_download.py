"""Downloads from a server on this machine that fails as servers and networks do."""

import errno
import fcntl
import hashlib
import http.server
import logging
import shutil
import subprocess
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from local_server import serving

from retinanet_jax.runtime import download as download_lib
from retinanet_jax.runtime.download import TRIES, DownloadError, download
from retinanet_jax.runtime.partial_file import PartialFile

ROOT = Path(__file__).resolve().parent.parent
OLD = np.random.default_rng(0).bytes(3_000_000)  # over two of the pieces that are read at once
NEW = np.random.default_rng(1).bytes(2_500_000)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves server.content, cut off as server.cuts says (bytes of each answer; then all)."""

    def do_GET(self):
        server, range_header = self.server, self.headers.get("Range")
        server.ranges.append(range_header)
        if server.failures:
            return self.send_error(server.failures.pop(0))
        content, version = server.content, server.version
        start = 0
        if range_header and server.ranges_work:
            asked = int(range_header.removeprefix("bytes=").removesuffix("-"))
            if asked >= len(content):
                return self.send_error(416)
            if server.ignores_if_range or self.headers.get("If-Range") == version:
                start = asked
        self.send_response(206 if start else 200)
        if start:
            of = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", of)
        if version:
            self.send_header(server.header, version)
        body = content[start:]
        sent = body[: server.cuts.pop(0)] if server.cuts else body
        if server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            end = b"\r\n0\r\n\r\n" if sent == body else b""
            sent = b"%x\r\n" % len(body) + sent + end
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(sent[:1_000_000])
        if server.meeting:
            server.meeting.wait(60)
        self.wfile.write(sent[1_000_000:])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download_lib, "_FIRST_WAIT_SECONDS", 0)
    with serving(Handler) as server:
        server.content, server.version, server.header = OLD, '"1"', "ETag"
        server.ranges_work, server.ignores_if_range, server.chunked = True, False, False
        server.cuts, server.failures, server.ranges, server.meeting = [], [], [], None
        server.url = f"http://127.0.0.1:{server.server_port}/train2017.zip"
        yield server


@pytest.fixture
def target(tmp_path):
    return tmp_path / "coco" / "train2017.zip"


def files(target) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def interrupt(server, target, size=1_200_000):
    """A download that fails after some bytes."""
    server.cuts = [size] + [0] * (TRIES - 1)
    with pytest.raises(DownloadError, match=r"try again to resume"):
        download(server.url, target)
    assert files(target) == ["train2017.zip.part", "train2017.zip.part.json"]
    assert target.with_name("train2017.zip.part").stat().st_size == size
    server.ranges.clear()


@pytest.mark.parametrize("header, version", [("ETag", '"a"'), ("Last-Modified", "Mon, 1 Jan")])
def test_a_dropped_connection_resumes(server, target, header, version):
    server.header, server.version = header, version
    server.cuts = [1_000_000, 0, 500_000, 1]
    expected = sha256(OLD)
    assert download(server.url, target, size=len(OLD), sha256=expected) == expected
    assert target.read_bytes() == OLD and files(target) == ["train2017.zip"]
    starts = [0 if r is None else int(r[len("bytes=") : -1]) for r in server.ranges]
    assert starts == [0, 1_000_000, 1_000_000, 1_500_000, 1_500_001]


def test_an_answer_of_unknown_length_resumes(server, target):
    server.chunked, server.cuts = True, [1_500_000]
    download(server.url, target, sha256=sha256(OLD))
    assert target.read_bytes() == OLD and len(server.ranges) == 2
    assert int(server.ranges[1][len("bytes=") : -1]) >= 1 << 20
    server.cuts, server.version = [1_500_000] * TRIES, None
    with pytest.raises(DownloadError, match="of an unknown number of bytes arrived"):
        download(server.url, target.with_name("other.zip"))


def test_a_later_process_resumes(server, target):
    interrupt(server, target)
    download(server.url, target, sha256=sha256(OLD))
    assert server.ranges == ["bytes=1200000-"] and target.read_bytes() == OLD


@pytest.mark.parametrize("ignores_if_range", [False, True])
@pytest.mark.parametrize("content", [NEW, OLD[:1_000_000], OLD[::-1]])
def test_a_file_that_has_changed_starts_again(server, target, content, ignores_if_range):
    interrupt(server, target)
    server.content, server.version = content, '"2"'
    server.ignores_if_range = ignores_if_range
    assert download(server.url, target) == sha256(content)
    assert target.read_bytes() == content


@pytest.mark.parametrize("version, works", [('"1"', False), (None, True), ('W/"1"', True)])
def test_a_server_without_ranges_starts_again(server, target, version, works):
    server.version, server.ranges_work, server.cuts = version, works, [1_000_000, 2_000_000]
    download(server.url, target, sha256=sha256(OLD))
    assert target.read_bytes() == OLD
    assert (server.ranges[1] is not None) == (version == '"1"')


def test_it_gives_up_after_tries_that_bring_nothing_new(server, target):
    server.ranges_work, server.cuts = False, [1_000_000] * 50
    with pytest.raises(DownloadError, match=r"train2017\.zip.*1000000 of 3000000 bytes arrived"):
        download(server.url, target)
    assert len(server.ranges) == TRIES


def test_a_part_of_another_url_is_discarded(server, target):
    interrupt(server, target)
    download(server.url + "?other", target)
    assert server.ranges == [None] and target.read_bytes() == OLD


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"url": 1}'])
def test_a_part_of_unknown_origin_is_discarded(server, target, damage):
    interrupt(server, target)
    target.with_name("train2017.zip.part.json").write_bytes(damage)
    download(server.url, target)
    assert server.ranges == [None] and target.read_bytes() == OLD


def test_a_complete_part_is_not_requested_again(server, target):
    target.parent.mkdir()
    with PartialFile(server.url, target) as part:
        part.restart('"1"', len(OLD))
        part.write(OLD)
    download(server.url, target, sha256=sha256(OLD))
    assert server.ranges == [] and target.read_bytes() == OLD


def test_a_wrong_hash_is_named_and_the_file_is_deleted(server, target):
    with pytest.raises(DownloadError) as caught:
        download(server.url, target, sha256=sha256(NEW))
    assert sha256(OLD) in str(caught.value) and sha256(NEW) in str(caught.value)
    assert "deleted" in str(caught.value) and files(target) == []


def test_a_damaged_part_is_found_by_the_hash(server, target):
    interrupt(server, target)
    part = target.with_name("train2017.zip.part")
    part.write_bytes(b"x" + part.read_bytes()[1:])
    with pytest.raises(DownloadError, match="SHA-256"):
        download(server.url, target, sha256=sha256(OLD))
    assert files(target) == []
    download(server.url, target, sha256=sha256(OLD))


def test_a_wrong_size_is_an_error_before_the_download(server, target):
    with pytest.raises(DownloadError, match="has 3000000 bytes instead of 2999999"):
        download(server.url, target, size=len(OLD) - 1)
    assert files(target) == []


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_failing_server_is_asked_again(server, target, status, caplog):
    server.failures = [status] * (TRIES - 1)
    with caplog.at_level(logging.WARNING):
        download(server.url, target)
    assert target.read_bytes() == OLD and f"answered {status}" in caplog.text


@pytest.mark.parametrize("failures", [[404], [403], [503] * TRIES])
def test_a_permanent_answer_is_in_the_message(server, target, failures):
    status = failures[0]
    server.failures = list(failures)
    with pytest.raises(DownloadError, match=rf"train2017\.zip.*answered {status}"):
        download(server.url, target)
    assert files(target) == [] and len(server.ranges) == len(failures)


def test_a_full_disk_is_an_error_at_the_start(server, target, monkeypatch):
    usage = types.SimpleNamespace(free=2_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(
        DownloadError, match=r"needs 3000000 more bytes, but only 2000000 are free in .*coco"
    ):
        download(server.url, target)


def test_a_disk_that_fills_up_is_not_tried_again(server, target, monkeypatch):
    def write(self, chunk):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PartialFile, "write", write)
    with pytest.raises(DownloadError, match=r"coco \(No space left on device\).*free some space"):
        download(server.url, target)
    assert len(server.ranges) == 1


def test_with_locks_one_downloads_and_the_others_wait(server, target):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: download(server.url, target), range(4)))
    assert found == [sha256(OLD)] * 4 and files(target) == ["train2017.zip"]
    assert len(server.ranges) < 4


def test_what_is_on_the_disk_is_checked(server, target, monkeypatch):
    """The stream may be right and the file wrong."""

    def write(self, chunk):
        self._file.write(bytes(len(chunk)))
        self.size += len(chunk)

    monkeypatch.setattr(PartialFile, "write", write)
    with pytest.raises(DownloadError, match="its SHA-256 is"):
        download(server.url, target, sha256=sha256(OLD))
    assert files(target) == []


WITHOUT_LOCKS = """
import fcntl, sys
def flock(*_):
    raise OSError(37, "No locks available")
fcntl.flock = flock
"""
CHILD = """
import sys
from pathlib import Path
from retinanet_jax.runtime import download
stamp = download._stamp
def report(path):
    found = stamp(path)
    print("begun", flush=True)
    return found
download._stamp = report
print(download.download(sys.argv[1], Path(sys.argv[2]), sha256=sys.argv[3]))
"""


@pytest.mark.parametrize("locks", [True, False])
def test_two_processes_do_not_spoil_each_other(server, target, locks):
    """Both are in mid-download at once, unless a lock makes one of them wait."""
    server.meeting = threading.Event() if locks else threading.Barrier(2)
    code = CHILD if locks else WITHOUT_LOCKS + CHILD
    command = [sys.executable, "-c", code, server.url, str(target), sha256(OLD)]
    children = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    if locks:  # the first answer waits until both have begun
        assert [child.stdout.readline() for child in children] == ["begun\n"] * 2
        server.meeting.set()
    outputs = [child.communicate(timeout=120)[0].split()[-1] for child in children]
    assert [child.returncode for child in children] == [0, 0] and outputs == [sha256(OLD)] * 2
    assert target.read_bytes() == OLD and files(target) == ["train2017.zip"]
    assert len(server.ranges) == (1 if locks else 2)


def test_without_locks_a_dropped_connection_resumes_and_a_failure_leaves_nothing(
    server, target, monkeypatch
):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    server.cuts = [1_000_000, 500_000]
    download(server.url, target, sha256=sha256(OLD))
    assert target.read_bytes() == OLD and files(target) == ["train2017.zip"]
    assert server.ranges == [None, "bytes=1000000-", "bytes=1500000-"]
    server.cuts = [1_000_000] + [0] * TRIES
    with pytest.raises(DownloadError, match=r"; try again, or save it as "):
        download(server.url, target.with_name("other.zip"))
    assert files(target) == ["train2017.zip"]
    server.cuts, server.ranges_work = [1_000_000, 500_000], False
    download(server.url, target.with_name("other.zip"), sha256=sha256(OLD))


def test_plain_http_is_for_files_of_a_known_hash(target):
    url = "http://example.com/train2017.zip"
    assert download_lib.check_url(url, "0" * 64) == url
    for known in (None, "0" * 8):
        with pytest.raises(DownloadError, match="only https://"):
            download(url, target, sha256=known)
