"""Public weights by name: a server on this machine stands in for the projects' hosts."""

import hashlib
import http.server
import re
import sys
import threading
from pathlib import Path

import golden_models
import numpy as np
import pytest
from checkpoint_layouts import mmdetection_state
from local_server import serving
from test_weights_pretrained import run_of

from retinanet_jax.config.experiment_files import load_experiment
from retinanet_jax.config.recipes import RECIPES
from retinanet_jax.config.settings import from_config_dict
from retinanet_jax.core.resnet import ARCHITECTURES
from retinanet_jax.core.retinanet import ModelConfig
from retinanet_jax.inference.detector import Detector
from retinanet_jax.inference.trained import read_trained
from retinanet_jax.runtime import download
from retinanet_jax.weights import PUBLIC_WEIGHTS, WeightsError
from retinanet_jax.weights.locations import cached_path, fetch
from retinanet_jax.weights.pretrained import load_pretrained
from retinanet_jax.weights.public_weights import imagenet_weights

ROOT = Path(__file__).resolve().parent.parent
V1 = "torchvision/retinanet_resnet50_fpn"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves server.files by host and path; the first answer for each breaks off half way."""

    def do_GET(self):
        server, path = self.server, self.path.lstrip("/")
        server.requests.append((path, self.headers.get("Range")))
        if path not in server.files:
            return self.send_error(404)
        content, start = server.files[path], 0
        if self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"1"')
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cut = len(content) // 2 if path not in server.cut else len(content)
        server.cut.add(path)
        self.wfile.write(content[start:cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def hosts(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("RETINANET_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "_FIRST_WAIT_SECONDS", 0)
    with serving(Handler) as server:
        server.files, server.requests, server.cut = {}, [], set()
        monkeypatch.setenv("RETINANET_JAX_MIRROR", f"http://127.0.0.1:{server.server_port}/")
        yield server


def publish(hosts, monkeypatch, name, content):
    """Puts a file on the host of named weights, with its own size and hash in the table."""
    weights = PUBLIC_WEIGHTS[name]
    changes = {"mib": round(len(content) / 2**20, 3) if weights.mib else 0}
    if weights.sha256:
        changes["sha256"] = hashlib.sha256(content).hexdigest()[:8]
    monkeypatch.setitem(PUBLIC_WEIGHTS, name, weights._replace(**changes))
    hosts.files[weights.url.removeprefix("https://")] = content


@pytest.mark.parametrize("name", PUBLIC_WEIGHTS)
def test_a_named_file_resumes_is_checked_and_kept(hosts, monkeypatch, name):
    content = name.encode() * 100
    publish(hosts, monkeypatch, name, content)
    path = fetch(name)
    assert path == cached_path(PUBLIC_WEIGHTS[name]) and path.read_bytes() == content
    assert [part for _, part in hosts.requests] == [None, f"bytes={len(content) // 2}-"]
    assert fetch(name) == path and len(hosts.requests) == 2
    if PUBLIC_WEIGHTS[name].sha256:
        path.write_bytes(content[:-1] + b"x")  # damaged in the cache: downloaded again
        assert fetch(name).read_bytes() == content and len(hosts.requests) == 3
    hosts.files[PUBLIC_WEIGHTS[name].url.removeprefix("https://")] = content[::-1]
    path.unlink()
    if PUBLIC_WEIGHTS[name].sha256:
        with pytest.raises(WeightsError, match=rf"{name}: .*SHA-256"):
            fetch(name)
        assert not list(path.parent.iterdir())


def test_a_wrong_size_is_refused(hosts, monkeypatch):
    publish(hosts, monkeypatch, V1, bytes(2**20))
    for mib in (0.9, 1.1):
        monkeypatch.setitem(PUBLIC_WEIGHTS, V1, PUBLIC_WEIGHTS[V1]._replace(mib=mib))
        with pytest.raises(WeightsError, match=r"is larger than \d+ bytes|instead of 1.1 MiB"):
            fetch(V1)
        assert not list(cached_path(PUBLIC_WEIGHTS[V1]).parent.iterdir())


def test_without_a_connection_the_message_says_which_file_goes_where(hosts, monkeypatch):
    monkeypatch.setenv("RETINANET_JAX_MIRROR", "http://127.0.0.1:9")
    content = b"weights" * 100
    weights = PUBLIC_WEIGHTS[V1]
    target = cached_path(weights)
    place = re.escape(f"save it as {target} yourself (a copy of {weights.url})")
    with pytest.raises(WeightsError, match=place):
        Detector.from_pretrained(V1)
    config, variables = run_of(model__backbone="resnet50")
    backbone = cached_path(PUBLIC_WEIGHTS["torchvision/resnet50.imagenet1k_v1"])
    with pytest.raises(WeightsError, match=rf"as {backbone} .*; --weights=none"):
        load_pretrained("imagenet", variables, config)
    digest = hashlib.sha256(content).hexdigest()[:8]
    mib = round(len(content) / 2**20, 3)
    monkeypatch.setitem(PUBLIC_WEIGHTS, V1, weights._replace(sha256=digest, mib=mib))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    assert fetch(V1) == target


def test_two_first_starts_at_once(hosts, monkeypatch):
    publish(hosts, monkeypatch, V1, np.random.default_rng(0).bytes(3_000_000))
    found = []
    threads = [threading.Thread(target=lambda: found.append(fetch(V1))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [cached_path(PUBLIC_WEIGHTS[V1])] * 4
    assert [path.name for path in found[0].parent.iterdir()] == [found[0].name]


def npz(tmp_path, state):
    np.savez(tmp_path / "state.npz", **state)
    return (tmp_path / "state.npz").read_bytes()


def test_a_detector_by_name(golden_dir, hosts, monkeypatch, tmp_path):
    """torchvision's v1 has epsilon 0 and COCO's classes, whatever the file is called."""
    state = golden_models.state_dict(golden_dir, "retinanet_resnet18_fpn")
    publish(hosts, monkeypatch, V1, npz(tmp_path, state))
    detector = Detector.from_pretrained(V1)
    assert detector.config.model.norm_epsilon == 0
    assert detector.categories.names[:2] == ("person", "bicycle")
    assert read_trained(V1).config == detector.config  # as --model=NAME
    name = "mmdetection/retinanet_r50_caffe_fpn_1x_coco"
    publish(hosts, monkeypatch, name, npz(tmp_path, mmdetection_state(state)))
    caffe = Detector.from_pretrained(name, class_names=[str(n) for n in range(91)])
    assert caffe.config.pixels.order == "bgr"


def test_imagenet_is_the_backbones_own_file(golden_dir, hosts, monkeypatch, tmp_path):
    content = npz(tmp_path, golden_models.state_dict(golden_dir, "resnet18"))
    publish(hosts, monkeypatch, "torchvision/resnet18.imagenet1k_v1", content)
    config, variables = run_of(model__backbone="resnet18", data__cache_dir=str(tmp_path / "other"))
    imported = load_pretrained("imagenet", variables, config)
    assert {name.split("/")[0] for name in imported.taken} == {"backbone"}
    assert "imagenet: torchvision/resnet18.imagenet1k_v1" in imported.summary()
    assert (tmp_path / "other/weights/resnet18-f37072fd.pth").read_bytes() == content


def test_every_backbone_has_imagenet_weights():
    for name in ARCHITECTURES:
        weights = imagenet_weights("imagenet", ModelConfig(backbone=name))
        assert name in weights.file_name
    names = {"imagenet": "0676ba61", "imagenet_v2": "11ad3fa6"}
    for choice, digest in names.items():
        assert imagenet_weights(choice, ModelConfig()).sha256 == digest
    caffe = ModelConfig(stride_on="1x1")
    assert imagenet_weights("imagenet", caffe).name == "detectron2/MSRA_R-50"
    for choice, model in (
        ("imagenet_v2", caffe),
        ("imagenet_v2", ModelConfig(backbone="resnet18")),
        ("imagenet", ModelConfig(backbone="resnet152", stride_on="1x1")),
    ):
        with pytest.raises(WeightsError, match="no such weights of"):
            imagenet_weights(choice, model)


@pytest.mark.parametrize(
    "experiment",
    ["folder.py", "folder.py:small", "voc.py", "coco.py:r101", "coco.py:x101"]
    + [f"coco.py:{name}" for name in RECIPES],
)
def test_the_default_weights_of_an_experiment_fit_its_network(experiment):
    tree = load_experiment(str(ROOT / "experiments" / experiment))
    tree.data.root = "somewhere"
    config = from_config_dict(tree)
    weights = imagenet_weights(config.model.pretrained, config.model)
    assert weights.pixels == config.pixels.order
    assert weights.name.startswith("detectron2") == (config.model.stride_on == "1x1")


def test_the_table_is_consistent():
    urls = [weights.url for weights in PUBLIC_WEIGHTS.values()]
    files = [weights.file_name for weights in PUBLIC_WEIGHTS.values()]
    assert len(set(urls)) == len(set(files)) == len(urls)
    for weights in PUBLIC_WEIGHTS.values():
        assert weights.url.startswith("https://") and weights.license
        assert weights.sha256 == "" or weights.file_name.endswith(f"-{weights.sha256}.pth")
        if weights.recipe:
            assert RECIPES[weights.recipe]["pixels.order"] == weights.pixels


def test_a_wrong_name_names_the_near_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "torchvision/retinanet_resnet50_fpn_v3"
    for read in (fetch, Detector.from_pretrained, Detector.from_checkpoint):
        with pytest.raises(WeightsError, match=r"did you mean torchvision/retinanet_resnet50_fpn"):
            read(name)


# The Hugging Face hub.


class Hub(http.server.BaseHTTPRequestHandler):
    """What huggingface_hub asks of a hub, for one file; a private repository wants the token."""

    def do_HEAD(self):
        self.answer(b"")

    def do_GET(self):
        self.answer(self.server.content)

    def answer(self, body):
        server = self.server
        server.requests.append((self.command, self.path, self.headers.get("Range")))
        if self.path != "/owner/name/resolve/v1/sub/weights.npz":
            return self.send_error(404)
        if self.headers.get("Authorization") != "Bearer hf_secret":
            return self.send_error(401)
        start = 0
        if self.headers.get("Range"):
            start = int(re.match(r"bytes=(\d+)-", self.headers["Range"])[1])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{server.etag}"')
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        self.wfile.write(body[start:])

    def log_message(self, *_):
        pass


def test_the_hub_is_read_with_revision_token_and_cache(monkeypatch, tmp_path):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    content = np.random.default_rng(0).bytes(100_000)
    location = "hf://owner/name@v1/sub/weights.npz"
    with serving(Hub) as server:
        server.content, server.requests = content, []
        server.etag = hashlib.sha256(content).hexdigest()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        path = fetch(location, tmp_path)
        assert path.read_bytes() == content
        downloads = [r for r in server.requests if r[0] == "GET" and "/resolve/" in r[1]]
        assert len(downloads) == 1 and downloads[0][2] is None
        assert fetch(location, tmp_path) == path
        assert [r for r in server.requests if r[0] == "GET" and "/resolve/" in r[1]] == downloads
        path.resolve().write_bytes(content[::-1])  # damaged in the cache
        with pytest.raises(WeightsError, match=r"its SHA-256 does not begin with .*; delete"):
            fetch(location, tmp_path)
        with pytest.raises(WeightsError, match="hf://owner/other/x: "):
            fetch("hf://owner/other/x", tmp_path)


def test_without_huggingface_hub_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match=r"pip install 'retinanet_jax\[hub\]'"):
        fetch("hf://owner/name/file")
