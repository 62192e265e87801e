"""Reads damaged input: each is read or refused by the package's own errors, in bounded time.

    python scripts/fuzz.py --seconds=300
    python scripts/fuzz.py --targets=cvat,kitti --seed=7
    python scripts/fuzz.py --targets=image,checkpoint,config

A target is a layout of datasets, or image, checkpoint or config. Something small and valid is
damaged at random: files are cut, bits flipped, and values replaced by those of other types, huge or
nested ones, and paths out of the folder. A failure is printed with the seed that repeats it:
--seed=SEED --count=1. scripts/fuzz_page.py does the same to the API of the page.
"""

import argparse
import contextlib
import functools
import io
import json
import pickle
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
from checkpoint_writers import (  # noqa: E402  # noqa: E402
    npy,
    safetensors,
    small_arrays,
    torch_legacy_of,
    torch_zip_of,
    zip_file,
)
from layout_writers import FURTHER_WRITERS, SMALL, WRITERS  # noqa: E402
from PIL import Image  # noqa: E402

from retinanet_jax.config.experiment_files import load_config  # noqa: E402
from retinanet_jax.config.settings import (  # noqa: E402
    ConfigError,
    default_config,
    from_config_dict,
    from_json,
    to_json,
)
from retinanet_jax.config.short_settings import SHORT_SETTINGS, expand_short_flags  # noqa: E402
from retinanet_jax.data.data_errors import DataError  # noqa: E402
from retinanet_jax.data.folder import FolderSettings, load_index  # noqa: E402
from retinanet_jax.data.images import decode  # noqa: E402
from retinanet_jax.weights.readers import read_state_dict  # noqa: E402
from retinanet_jax.weights.weights_error import WeightsError  # noqa: E402

LAYOUTS = {**WRITERS, **FURTHER_WRITERS}
SECONDS, GIB = 20, 6  # of CPU time for one input; of address space
RESIDENT = 2 << 30  # bytes of memory
LARGEST = 100 << 20  # bytes that one damage adds
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
IMAGES = (".png", ".jpg")
PATHS = (
    *(
        "/etc/passwd",
        "../../outside.png",
        "..\\..\\outside.png",
        "C:\\outside.png",
        "a/../../b.png",
    ),
    *("x" * 5000, "a\0b.png", "\ud800.png", ".", "", " ", "http://127.0.0.1/a.png", "~", "a.png"),
)
NUMBERS = (0, -1, 10**400, 2**63, 1e308, -1e308, 1e-320, 5e-324, 0.5, float("nan"), float("inf"))
OTHERS = (None, True, [], {}, [[]], [None] * 4, {"x": 1}, "1_0", "0x10", "\u0661", "nan", "1e999")


def any_value(rng: random.Random):
    """A value that no annotation has."""
    return rng.choice(rng.choice((PATHS, NUMBERS, OTHERS)))


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def flip_bits(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data or b"x")
    for _ in range(rng.choice((1, 3, 30))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def repeat(rng: random.Random, data: bytes) -> bytes:
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    times = min(rng.choice((1, 2, 500)), LARGEST // max(1, end - start))
    return data[:end] + data[start:end] * times + data[end:]


def replace_word(rng: random.Random, data: bytes) -> bytes:
    """One number or word of a text replaced."""
    words = data.decode("utf-8", "replace").split(" " if rng.random() < 0.5 else None)
    if words:
        words[rng.randrange(len(words))] = str(any_value(rng))
    return " ".join(words).encode("utf-8", "surrogatepass")


def nest(rng: random.Random, data: bytes) -> bytes:
    opening = rng.choice((b"[", b'{"a":', b"<a>", b"- ", b"&a [", b'"'))
    place = rng.randrange(len(data) + 1)
    return data[:place] + opening * rng.choice((10, 10_000, 200_000)) + data[place:]


def change_json(rng: random.Random, data: bytes) -> bytes:
    """One value of a JSON text replaced or removed, or a key renamed."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        content = None
    if not content or not isinstance(content, dict | list):
        return replace_word(rng, data)
    entry = content
    while True:
        key = rng.choice(list(entry) if isinstance(entry, dict) else range(len(entry)))
        inner = entry[key]
        if not inner or not isinstance(inner, dict | list) or rng.random() < 0.2:
            break
        entry = inner
    if rng.random() < 0.2:
        del entry[key]
    else:
        entry[key] = any_value(rng) if rng.random() < 0.9 else [inner] * 2
    return json.dumps(content).encode()


DAMAGES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    *(cut, flip_bits, repeat, replace_word, nest, change_json, change_json, change_json),
)


def damage(rng: random.Random, root: Path) -> None:
    """Damages one to three files below a folder."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    for path in rng.choices(files, k=rng.choice((1, 1, 3))):
        if path.suffix in IMAGES and rng.random() < 0.8:
            continue
        if rng.random() < 0.05:
            path.unlink(missing_ok=True)
        elif path.is_file():
            path.write_bytes(rng.choice(DAMAGES)(rng, path.read_bytes()))


def check(target: str, seed: int, folder: Path) -> str:
    """Reads one damaged input: 'read' or 'refused'; raises for everything else."""
    rng = random.Random(f"{target} {seed}")
    try:
        TARGETS[target](rng, folder)
    except (DataError, WeightsError, ConfigError) as error:
        assert len(str(error)) < 20_000
        return "refused"
    return "read"


def read_dataset(layout: str, rng: random.Random, folder: Path) -> None:
    root = folder / "data"
    LAYOUTS[layout](root, SMALL)
    for _ in range(rng.choice((1, 1, 2))):
        damage(rng, root)
    settings = FolderSettings(
        str(root), str(folder / "cache"), on_error=rng.choice(("strict", "skip"))
    )
    for split in ("train", "auto"):
        paths = [Path(path) for path in load_index(settings, split).paths]
        assert all(path.resolve().is_relative_to(root.resolve()) for path in paths), paths


def damaged(rng: random.Random, data: bytes) -> bytes:
    """A binary file with one to three kinds of damage."""
    for change in rng.choices((cut, flip_bits, flip_bits, repeat), k=rng.choice((1, 1, 3))):
        data = change(rng, data)
    return data


@functools.cache
def images() -> list[bytes]:
    """A small image in every format and mode."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    found = []
    for name in FORMATS:
        for mode in ("RGB", "L", "P", "RGBA", "CMYK", "I;16"):
            file = io.BytesIO()
            with contextlib.suppress(OSError, ValueError, KeyError):
                Image.fromarray(pixels).convert(mode).save(file, name)
                found.append(file.getvalue())
    return [*found, *[path.read_bytes() for path in ROOT.glob("tests/golden/*.heic")]]


def read_image(rng: random.Random, folder: Path) -> None:
    image = decode(damaged(rng, rng.choice(images())), "image", rng.randrange(1, 9))
    assert image.dtype == np.uint8 and image.ndim == 3


@functools.cache
def checkpoints() -> list[bytes]:
    """A small checkpoint in every format."""
    arrays = small_arrays()
    header = b'{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}'
    return [
        torch_zip_of(arrays),
        torch_legacy_of(arrays),
        *(pickle.dumps({"model": arrays}, protocol=protocol) for protocol in (0, 2, 4, 5)),
        safetensors(header, bytes(24)),
        zip_file([(f"{key}.npy", npy(array)) for key, array in arrays.items()]),
    ]


def read_checkpoint(rng: random.Random, folder: Path) -> None:
    path = folder / "weights"
    path.write_bytes(damaged(rng, rng.choice(checkpoints())))
    assert all(type(array) is np.ndarray for array in read_state_dict(path).values())


def read_config(rng: random.Random, folder: Path) -> None:
    """A value of an experiment, a config.json, or the short flags of a command line."""
    kind = rng.randrange(3)
    if kind == 0:
        tree = default_config().to_dict()
        section = rng.choice([name for name, value in tree.items() if isinstance(value, dict)])
        value = rng.choice((any_value(rng), rng.choice(OTHERS), tuple(rng.choices(NUMBERS, k=2))))
        load_config("shapes", **{f"{section}__{rng.choice(list(tree[section]))}": value})
    elif kind == 1:
        text = change_json(rng, to_json(from_config_dict(default_config())).encode())
        from_json(text.decode("utf-8", "replace"))
    else:
        names = rng.choices((*SHORT_SETTINGS, "config", "config.train.steps", "x"), k=3)
        words = [f"--{name}={any_value(rng)}" for name in names]
        expand_short_flags(["train", *rng.choices((*words, "--", "=", "--lr"), k=4)])


TARGETS: dict[str, Callable[[random.Random, Path], None]] = {
    **{layout: functools.partial(read_dataset, layout) for layout in LAYOUTS},
    **{"image": read_image, "checkpoint": read_checkpoint, "config": read_config},
}


def fuzz(targets: list[str], seed: int, count: int, seconds: float) -> int:
    """Reads `count` random inputs of each target, prints the results, counts the failures."""
    failures = 0
    for target in targets:
        results = {"read": 0, "refused": 0}
        end = time.monotonic() + seconds / len(targets)
        for number in range(seed, seed + count):
            if time.monotonic() > end:
                break
            folder = Path(tempfile.mkdtemp(prefix="fuzz"))
            try:
                with limited():
                    results[check(target, number, folder)] += 1
            except Exception:
                failures += 1
                print(f"{target} --seed={number} --count=1\n{traceback.format_exc()}", flush=True)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        failures += most > RESIDENT
        print(
            f"{target:16} {results['read']} read, {results['refused']} refused; the process has "
            f"needed up to {most / 1e6:.0f} MB",
            flush=True,
        )
    return failures


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Raises TimeoutError in code that takes more than SECONDS of CPU time."""

    def stop(signum, frame):
        raise TimeoutError(f"more than {SECONDS} s of CPU time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=10**9)
    parser.add_argument("--seconds", type=float, default=600)
    given = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")  # tracebacks quote any text
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (GIB << 30, GIB << 30))
    sys.exit(fuzz(given.targets.split(","), given.seed, given.count, given.seconds) > 0)


if __name__ == "__main__":
    main()
