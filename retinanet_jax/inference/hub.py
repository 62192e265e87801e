"""Detectors on the Hugging Face Hub: model.safetensors, config.json and a model card.

    detector.push_to_hub("me/cells")
    detector = Detector.from_pretrained("me/cells")

The files contain arrays, JSON and text; nothing in them is executed.
"""

import dataclasses
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from PIL import Image

from retinanet_jax.config.data_section import DataConfig
from retinanet_jax.config.settings import Config, ConfigError, from_json, to_json
from retinanet_jax.core.initialization import variable_shapes
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.image_input import read_image
from retinanet_jax.data.records import Categories
from retinanet_jax.inference.results import ImageDetections, save_image
from retinanet_jax.inference.trained import Trained
from retinanet_jax.weights import WeightsError
from retinanet_jax.weights.array_files import read_safetensors
from retinanet_jax.weights.torchvision_export import write_safetensors

ARRAYS, SETTINGS, CARD = "model.safetensors", "config.json", "README.md"
EXAMPLE, DRAWN = "example.jpg", "detections.jpg"
_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?")


def is_hub_name(text: str) -> bool:
    """Whether a text has the form OWNER/NAME or OWNER/NAME@REVISION."""
    return _NAME.fullmatch(text) is not None


def is_saved_folder(folder: Path) -> bool:
    """Whether `save_detector` wrote the folder."""
    return (folder / ARRAYS).is_file() and (folder / SETTINGS).is_file()


def save_detector(trained: Trained, folder: Path, card: str = "") -> None:
    """Writes the files of a detector. Its config leaves out paths of this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = flatten_dict(jax.device_get(dict(trained.variables)), sep="/")
    write_safetensors(folder / ARRAYS, {k: np.ascontiguousarray(v) for k, v in arrays.items()})
    content = {
        "library": "retinanet_jax",
        "config": json.loads(to_json(_without_paths(trained.config))),
        "names": list(trained.categories.names),
        "ids": list(trained.categories.ids),
    }
    (folder / SETTINGS).write_text(json.dumps(content, indent=2), encoding="utf-8")
    if card:
        (folder / CARD).write_text(card, encoding="utf-8")


def _without_paths(config: Config) -> Config:
    data = dataclasses.replace(
        config.data,
        root=Path(config.data.root).resolve().name or "data",
        annotations="",
        mix=(),
        cache_dir=DataConfig.cache_dir,
    )
    pretrained = config.model.pretrained
    if pretrained is not None:
        pretrained = Path(pretrained).name
    return dataclasses.replace(
        config, data=data, model=dataclasses.replace(config.model, pretrained=pretrained)
    )


def read_detector(folder: Path, name: str = "") -> Trained:
    """Reads a detector from a folder that `save_detector` wrote.

    Args:
        folder: folder with model.safetensors and config.json.
        name: name of the detector in messages; by default the folder.

    Raises:
        WeightsError: a file is missing, damaged, or was written by another program.
    """
    name = name or str(folder)
    if not is_saved_folder(folder):
        raise WeightsError(f"{name}: not a saved detector: {ARRAYS} and {SETTINGS} are missing")
    try:
        content = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        config = from_json(json.dumps(content["config"]))
        categories = Categories(tuple(content["names"]), tuple(content["ids"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise WeightsError(f"{name}: {SETTINGS}: {error}") from error
        fix = "it is not a detector of retinanet_jax"
        raise WeightsError(f"{name}: {SETTINGS} cannot be read ({error}); {fix}") from error
    variables = unflatten_dict(read_safetensors(folder / ARRAYS), sep="/")
    _check_shapes(variables, config, categories, name)
    return Trained(variables, config, categories)


def _check_shapes(variables: Any, config: Config, categories: Categories, name: str) -> None:
    model = build_model(config.model, categories.num_classes, config.anchors.anchors_per_location)
    shapes = variable_shapes(model)
    expected = {path: x.shape for path, x in flatten_dict(dict(shapes), sep="/").items()}
    found = {path: x.shape for path, x in flatten_dict(variables, sep="/").items()}
    if different := sorted(
        path for path in expected.keys() | found.keys() if expected.get(path) != found.get(path)
    ):
        raise WeightsError(
            f"{name}: {ARRAYS} does not fit {SETTINGS}, in {len(different)} arrays such as "
            f"{different[0]}"
        )


def download_detector(name: str) -> Trained:
    """Downloads the detector of a repository OWNER/NAME or OWNER/NAME@REVISION of the Hub.

    Raises:
        WeightsError: there is no such repository or detector, or the Hub cannot be reached.
    """
    repository, _, revision = name.partition("@")
    with _hub_errors(name):
        from huggingface_hub import snapshot_download

        folder = snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=[ARRAYS, SETTINGS],
            endpoint=os.environ.get("HF_ENDPOINT"),
        )
    return read_detector(Path(folder), name)


def upload_detector(
    trained: Trained,
    name: str,
    *,
    metrics: Mapping[str, float | None] | None = None,
    description: str = "",
    example: ImageDetections | None = None,
    private: bool = False,
    token: str | None = None,
) -> str:
    """Uploads a detector to a repository OWNER/NAME, created if missing; returns its address.

    Args:
        trained: the detector.
        name: name of the repository.
        metrics: metrics for the model card, such as "summary" of WORKDIR/best/results.json.
        description: text for the model card: what was photographed, how, and for what.
        example: an image with its detections, for the model card and its widget.
        private: whether a new repository is private.
        token: token of the Hub; by default that of `hf auth login`, or HF_TOKEN.

    Raises:
        WeightsError: the name is invalid, the token is rejected, or the Hub cannot be reached.
    """
    if not is_hub_name(name) or "@" in name:
        raise WeightsError(f"{name}: is not a repository name; write OWNER/NAME")
    card = model_card(trained, name, metrics, description, has_example=example is not None)
    with tempfile.TemporaryDirectory() as folder, _hub_errors(name):
        from huggingface_hub import HfApi

        save_detector(trained, Path(folder), card)
        if example is not None:
            save_image(Image.fromarray(read_image(example.image)), Path(folder) / EXAMPLE)
            example.plot(Path(folder) / DRAWN)
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
        address = api.create_repo(name, private=private, exist_ok=True)
        message = "Upload a RetinaNet of retinanet_jax"
        api.upload_folder(repo_id=name, folder_path=folder, commit_message=message)
    return str(address)


class _hub_errors:
    """Turns the errors of huggingface_hub into one line with the fix."""

    def __init__(self, name: str):
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, Exception) or isinstance(error, WeightsError):
            return
        raise WeightsError(f"{self._name}: {_explanation(error)}") from error


def _explanation(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "the Hub needs huggingface_hub; pip install 'retinanet_jax[hub]'"
    status = getattr(getattr(error, "response", None), "status_code", None)
    kind = type(error).__name__
    if kind == "RepositoryNotFoundError":
        return "no such file, and no such repository on the Hub that you can read"
    if status in (401, 403):
        return (
            "the Hub rejects the token; run `hf auth login` or pass token=, with a token that has "
            "access, and write access to upload"
        )
    first = next((line for line in str(error).splitlines() if line.strip()), "failed")
    if status is None and not isinstance(error, ValueError):
        return f"the Hub cannot be reached ({kind}: {first}); check the connection"
    return f"{kind}: {first}"


def model_card(
    trained: Trained,
    name: str,
    metrics: Mapping[str, float | None] | None = None,
    description: str = "",
    *,
    has_example: bool = False,
) -> str:
    """Writes a repository's README.md: what it detects, how well, its limits, how to use it."""
    config, names = trained.config, trained.categories.names
    known = {metric: value for metric, value in (metrics or {}).items() if value is not None}
    figures = "".join(f"| {metric} | {value:.4f} |\n" for metric, value in known.items())
    table = f"| metric | value |\n|---|---|\n{figures}" if figures else "No evaluation is recorded."
    sides = f"{config.pipeline.min_side} to {config.pipeline.max_side} pixels"
    data = Path(config.data.root).name or config.data.name
    widget = f"widget:\n- src: {EXAMPLE}\n" if has_example else ""
    drawn = f"\n![An image with its detections]({DRAWN})\n" if has_example else ""
    return f"""---
library_name: retinanet_jax
pipeline_tag: object-detection
tags: [retinanet, jax]
{widget}---

# {name}

{description or "A RetinaNet trained with retinanet_jax."}
{drawn}

- **Detects**: {", ".join(names)}
- **Network**: {config.model.backbone}, images of {sides} (short and long side)
- **Trained on**: {data} ({config.data.train_split}), {config.train.steps} steps of \
{config.train.batch_size} images

## Evaluation

{table}

## Limits

The detector knows only the classes above, in images like its training images. It misses objects
that are much smaller or larger than in those. The scores are not calibrated probabilities.

## Use

```python
from retinanet_jax import Detector

detector = Detector.from_pretrained("{name}")
detector("photo.jpg", threshold=0.5).plot("drawn.png")
```
"""
