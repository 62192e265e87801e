"""Detectors on the Hub, against a stand-in of its API on this machine."""

import argparse
import base64
import hashlib
import http.server
import io
import json
import re
import socket

import numpy as np
import pytest
import yaml
from local_server import serving
from PIL import Image
from small_detector import small_network

from retinanet_jax.cli.model_arguments import read_model
from retinanet_jax.inference.detector import Detector
from retinanet_jax.inference.hub import download_detector, read_detector, save_detector
from retinanet_jax.inference.trained import Trained
from retinanet_jax.weights import WeightsError

pytest.importorskip("huggingface_hub")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of the Hub's API that uploads and downloads one small repository."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _reply(self, content, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        files = self.server.files
        if "hf_refused" in self.headers.get("Authorization", ""):
            return self._reply({"error": "Invalid token"}, 401)
        if self.path == "/api/repos/create":
            return self._reply(
                {"url": "https://huggingface.co/me/cells", "id": "me/cells", "name": "cells"}
            )
        if self.path == "/api/validate-yaml":
            return self._reply({"errors": [], "warnings": []})
        if self.path == "/api/models/me/cells/preupload/main":
            names = [file["path"] for file in json.loads(body)["files"]]
            described = [
                {"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names
            ]
            return self._reply({"files": described})
        assert self.path.startswith("/api/models/me/cells/commit/main"), self.path
        for entry in map(json.loads, body.splitlines()):
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        address = f"https://huggingface.co/me/cells/commit/{COMMIT}"
        return self._reply({"success": True, "commitOid": COMMIT, "commitUrl": address})

    def do_GET(self):
        path, files = self.path.partition("?")[0], self.server.files
        if "hf_refused" in self.headers.get("Authorization", ""):
            return self._reply({"error": "Invalid token"}, 401)
        if path.startswith("/api/models/me/cells/tree"):
            return self._reply(
                [{"type": "file", "path": n, "size": len(c), "oid": n} for n, c in files.items()]
            )
        if path.startswith("/api/models/me/cells"):
            siblings = [{"rfilename": name} for name in files]
            return self._reply({"id": "me/cells", "sha": COMMIT, "siblings": siblings})
        if match := re.fullmatch(rf"/me/cells/resolve/{COMMIT}/(.+)", path):
            content = files[match[1]]
            tag = hashlib.sha256(content).hexdigest()
            return self._reply(content, ETag=f'"{tag}"', X_Repo_Commit=COMMIT)
        return self._reply({"error": "not found"}, 404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The stand-in, with an empty cache of huggingface_hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving(Hub) as server:
        server.files = {}
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield server


def test_a_detector_comes_back_from_the_hub(hub):
    variables, config, categories = small_network()
    detector = Detector(variables, config, categories, batch_size=1)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    about = {"metrics": {"AP": 0.5, "APs": None}, "description": "Insects."}
    detector.push_to_hub("me/cells", image=image, **about)
    images = {"example.jpg", "detections.jpg"}
    assert set(hub.files) == {"model.safetensors", "config.json", "README.md"} | images
    with Image.open(io.BytesIO(hub.files["example.jpg"])) as example:
        assert example.size == (96, 64)
    card = hub.files["README.md"].decode()
    assert yaml.safe_load(card.split("---")[1])["widget"] == [{"src": "example.jpg"}]
    assert "(detections.jpg)" in card
    for part in ("pipeline_tag: object-detection", "Insects.", "ant, bee, cat", "| AP | 0.5000 |"):
        assert part in card
    assert "APs" not in card
    again = Detector.from_pretrained("me/cells", batch_size=1)
    assert again.categories == categories
    expected, found = detector(image), again(image)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    assert len(found)
    trained = read_model(argparse.Namespace(model="hf://me/cells", step=None))
    assert trained.categories == categories


def test_errors_of_the_hub_are_one_line(hub, monkeypatch):
    detector = Detector(*small_network())
    for call, message in (
        (
            lambda: Detector.from_pretrained("me/nothing"),
            "me/nothing: no such file, and no such repository on",
        ),
        (lambda: detector.push_to_hub("cells"), "cells: is not a repository name; write"),
        (lambda: detector.push_to_hub("me/cells", token="hf_refused"), "the Hub rejects the token"),
    ):
        with pytest.raises(WeightsError, match=message) as error:
            call()
        assert "\n" not in str(error.value)
    with socket.socket() as closed:  # a port at which nothing answers
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(WeightsError, match=r"me/cells: the Hub cannot be reached \("):
        download_detector("me/cells")


def test_saved_files_have_no_paths_and_damage_is_found(tmp_path):
    variables, config, categories = small_network()
    trained = Trained(variables, config, categories)
    save_detector(trained, tmp_path)
    assert read_detector(tmp_path).config.anchors == config.anchors
    content = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    content["names"].append("fox")
    content["ids"].append(17)
    (tmp_path / "config.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(WeightsError, match=r"model\.safetensors does not fit config\.json"):
        read_detector(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "other"}', encoding="utf-8")
    with pytest.raises(WeightsError, match=r"config\.json cannot be read \('config'\)"):
        read_detector(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(WeightsError, match="are missing"):
        read_detector(tmp_path)
