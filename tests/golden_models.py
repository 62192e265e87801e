"""Reading the golden folder's weights, images and stored tensors, as its README.md describes."""

import dataclasses
import functools
import importlib.util
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from retinanet_jax.core.layers import PixelConfig, normalize
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.pipeline.transforms import fitted_size
from retinanet_jax.weights import LoadedCheckpoint, load_checkpoint


@functools.cache
def recipe(folder: Path):
    """The folder's own recipe.py as a module."""
    spec = importlib.util.spec_from_file_location("golden_recipe", folder / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shapes(folder: Path, name: str) -> dict[str, list[int]]:
    """The shapes of torchvision's arrays by their names, in its order."""
    return json.loads((folder / "state_dict" / f"{name}.json").read_text())


def state_dict(folder: Path, name: str) -> dict[str, np.ndarray]:
    """The weights that torchvision ran with, made again from the recipe and checked by checksum."""
    return dict(_state_dict(folder, name))


@functools.lru_cache(maxsize=2)
def _state_dict(folder: Path, name: str) -> dict[str, np.ndarray]:
    wanted = json.loads((folder / "state_dict" / f"{name}.crc32.json").read_text())
    state = recipe(folder).state(shapes(folder, name))
    changed = [key for key in state if recipe(folder).fingerprint(state[key]) != wanted[key]]
    assert not changed, f"the recipe's random stream has changed: {changed[:3]}"
    for value in state.values():
        value.flags.writeable = False  # several tests share it
    return state


def forget_state_dicts() -> None:
    """Releases the arrays that `state_dict` keeps for its next call."""
    _state_dict.cache_clear()


def load_detector(folder: Path, scratch: Path, version: str) -> LoadedCheckpoint:
    """torchvision's detector v1 or v2 through a file and our loading, with its 91 classes."""
    path = scratch / "checkpoint.npz"
    np.savez(path, **state_dict(folder, f"retinanet_resnet50_fpn_{version}"))
    loaded = load_checkpoint(path, raw_labels=True)
    path.unlink()
    return loaded


def empty_variables(model, image_shape=(1, 64, 64, 3)) -> dict:
    """The shapes of a model's variables, for an import that fills all of them."""
    return jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros(image_shape), train=False)
    )


def random_variables(model, image_shape=(1, 64, 64, 3), seed=0) -> dict:
    """Variables none of which is trivial, without the compilation that an initialisation costs."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            fan_in = np.prod(leaf.shape[:-1])
            return jnp.asarray(rng.standard_normal(leaf.shape) * np.sqrt(2 / fan_in), jnp.float32)
        if path[-1].key in ("scale", "var"):
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), jnp.float32)
        return jnp.asarray(0.1 * rng.standard_normal(leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, empty_variables(model, image_shape))


def counts(state: dict[str, np.ndarray]) -> tuple[int, int]:
    """(num_classes, anchors_per_location) of a detector's state dict."""
    anchors = len(state["head.regression_head.bbox_reg.bias"]) // 4
    return len(state["head.classification_head.cls_logits.bias"]) // anchors, anchors


def detector(folder: Path, name: str, config, importer):
    """(model, variables) with a golden detector's weights."""
    state = state_dict(folder, name)
    model = build_model(config, *counts(state))
    return model, importer(state, empty_variables(model)).variables


def batch(folder: Path, golden) -> np.ndarray:
    """The images of inputs.npz as torchvision's transform batches them, [b h w 3] float32."""
    inputs = np.load(folder / "inputs.npz")
    sizes = golden["eval/image_sizes"]
    _, _, height, width = golden["eval/batch/shape"]
    canvas = np.zeros((len(sizes), height, width, 3), np.float32)
    for index, (h, w) in enumerate(sizes):
        image = np.asarray(normalize(inputs[f"image{index}"][None], PixelConfig())[0])
        canvas[index, :h, :w] = resize(image.astype(np.float64), h, w)
    return canvas


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear with half-pixel centres and without antialiasing, [h w c]."""
    rows = _interpolation(image.shape[0], height)
    columns = _interpolation(image.shape[1], width)
    return np.einsum("ij,jkc,lk->ilc", rows, image, columns, optimize=True)


def _interpolation(old: int, new: int) -> np.ndarray:
    """[new old] weights."""
    source = np.maximum((np.arange(new) + 0.5) * old / new - 0.5, 0)
    low = np.minimum(np.floor(source).astype(int), old - 1)
    weights = np.zeros((new, old))
    weights[np.arange(new), low] += 1 - (source - low)
    weights[np.arange(new), np.minimum(low + 1, old - 1)] += source - low
    return weights


def assert_close(golden, key: str, ours, *, times: float = 6.0) -> None:
    """ours (N H W C or head outputs) against a stored tensor, within times its float32 error."""
    ours = np.asarray(ours)
    ours = ours.transpose(0, 3, 1, 2) if ours.ndim == 4 else ours
    assert ours.shape == tuple(golden[f"{key}/shape"]), key
    error = np.abs(ours.reshape(-1)[:: int(golden[f"{key}/step"])] - golden[f"{key}/slice"]).max()
    allowed = times * float(golden[f"{key}/f32_err"])
    assert error <= allowed, f"{key}: differs by {error:.2e}, allowed {allowed:.2e}"
    stats = ours.astype(np.float64)
    found = [stats.sum(), np.abs(stats).sum(), np.square(stats).sum()]
    np.testing.assert_allclose(found[1:], golden[f"{key}/stats"][1:3], rtol=1e-4, err_msg=key)
    assert abs(found[0] - golden[f"{key}/stats"][0]) <= allowed * stats.size, key


SCORE_ATOL, BOX_ATOL = 1e-5, 1e-3  # what detections are held to: probability, pixels


def images(folder: Path) -> list[np.ndarray]:
    """The images of inputs.npz, uint8 RGB."""
    inputs = np.load(folder / "inputs.npz")
    return [inputs[f"image{n}"] for n in range(sum(name.startswith("image") for name in inputs))]


def side_limits(folder: Path, golden) -> tuple[int, int]:
    """(min_side, max_side) of the transform, told by the sizes before and after it."""
    sizes = [image.shape[:2] for image in images(folder)]
    wanted = [tuple(size) for size in golden["eval/image_sizes"].tolist()]
    short, long = (max(map(side, wanted)) for side in (min, max))
    # A floor is at most one pixel below the limit.
    for low, high in itertools.product((short, short + 1), (long, long + 1)):
        if [fitted_size(size, low, high, floor=True) for size in sizes] == wanted:
            return low, high
    raise AssertionError(f"no limits lead from {sizes} to {wanted}")


def with_golden_sides(config, folder: Path, golden):
    """A typed config whose images are resized as those of the golden folder were."""
    low, high = side_limits(folder, golden)
    pipeline = dataclasses.replace(config.pipeline, min_side=low, max_side=high)
    return dataclasses.replace(config, pipeline=pipeline)


def stored(golden, key: str) -> list[np.ndarray]:
    """[boxes, scores, labels] of a stored list."""
    return [golden[f"{key}/{part}"] for part in ("boxes", "scores", "labels")]


def list_ends(golden, image: int) -> list[float]:
    """The lowest scores of torchvision's lists of an image: of each level's, and of the detections.

    The candidates are stored level by level, each by falling score.
    """
    scores = golden[f"eval/candidates/{image}/scores"]
    last_of_level = np.diff(scores, append=np.inf) > 0
    return [*scores[last_of_level], *golden[f"eval/detections/{image}/scores"][-1:]]


def parts(found) -> list[np.ndarray]:
    """Boxes, scores and labels of an ImageDetections."""
    return [found.boxes, found.scores, found.labels]


def assert_same_detections(got, want, *, cuts=(), box_atol=BOX_ATOL, score_atol=SCORE_ATOL) -> None:
    """The same boxes, scores and labels in the same order.

    got and want: (boxes, scores, labels). Scores nearer to each other than they are compared have
    no order. cuts: the lowest scores of lists that were cut off; whether a row that near to one of
    them is still in the list is open.
    """
    got, want = ([np.asarray(part) for part in rows] for rows in (got, want))
    same = np.abs(got[0][:, None] - want[0]).max(-1, initial=0) <= box_atol
    same &= np.abs(got[1][:, None] - want[1]) <= score_atol
    same &= got[2][:, None] == want[2]
    places = np.abs(np.arange(len(got[1]))[:, None] - np.arange(len(want[1])))
    ours, theirs = scipy.optimize.linear_sum_assignment(np.where(same, places, 10**6))
    paired = same[ours, theirs]
    ours, theirs = ours[paired], theirs[paired]
    for rows, found in ((got, ours), (want, theirs)):
        alone = np.delete(rows[1], found)
        near_cut = np.abs(alone[:, None] - np.array(cuts)).min(-1, initial=np.inf) <= score_atol
        assert near_cut.all(), f"{(~near_cut).sum()} of {len(rows[1])} rows are in one list alone"
    order = theirs[np.argsort(ours)]
    swapped = order != np.sort(order)
    gaps = np.abs(want[1][order] - want[1][np.sort(order)])[swapped]
    assert gaps.max(initial=0) <= score_atol, f"{swapped.sum()} rows are in another place"
