"""Reads damaged datasets in every layout: each gives a dataset or a DataError, in bounded time.

    python scripts/fuzz.py --seconds=300
    python scripts/fuzz.py --layouts=cvat,kitti --seed=7

A small valid dataset is damaged at random: annotation files are cut, bits flipped, and values
replaced by those of other types, huge or nested ones, and paths out of the folder. A failure is
printed with the seed that repeats it: --seed=SEED --count=1.
"""

import argparse
import contextlib
import json
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

from layout_writers import SMALL, WRITERS, write_kitti  # noqa: E402

from retinanet_jax.data.data_errors import DataError  # noqa: E402
from retinanet_jax.data.folder import FolderSettings, load_index  # noqa: E402

LAYOUTS = {**WRITERS, "kitti": write_kitti}
SECONDS, GIB = 20, 6  # of CPU time for one dataset; of memory
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
    return data[:end] + data[start:end] * rng.choice((1, 2, 500)) + data[end:]


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


def check(layout: str, seed: int, folder: Path) -> str:
    """Reads one damaged dataset: 'read' or 'refused'; raises for everything else."""
    rng, root = random.Random(f"{layout} {seed}"), folder / "data"
    LAYOUTS[layout](root, SMALL)
    for _ in range(rng.choice((1, 1, 2))):
        damage(rng, root)
    settings = FolderSettings(
        str(root), str(folder / "cache"), on_error=rng.choice(("strict", "skip"))
    )
    try:
        for split in ("train", "auto"):
            paths = [Path(path) for path in load_index(settings, split).paths]
            assert all(path.resolve().is_relative_to(root.resolve()) for path in paths), paths
    except DataError as error:
        assert len(str(error)) < 20_000
        return "refused"
    return "read"


def fuzz(layouts: list[str], seed: int, count: int, seconds: float) -> int:
    """Reads `count` random datasets of each layout, prints the results, counts the failures."""
    failures = 0
    for layout in layouts:
        results = {"read": 0, "refused": 0}
        end = time.monotonic() + seconds / len(layouts)
        for number in range(seed, seed + count):
            if time.monotonic() > end:
                break
            folder = Path(tempfile.mkdtemp(prefix="fuzz"))
            try:
                with limited():
                    results[check(layout, number, folder)] += 1
            except Exception:
                failures += 1
                print(f"{layout} --seed={number} --count=1\n{traceback.format_exc()}", flush=True)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        print(f"{layout:16} {results['read']} read, {results['refused']} refused", flush=True)
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
    parser.add_argument("--layouts", default=",".join(LAYOUTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=10**9)
    parser.add_argument("--seconds", type=float, default=600)
    given = parser.parse_args()
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (GIB << 30, GIB << 30))
    sys.exit(fuzz(given.layouts.split(","), given.seed, given.count, given.seconds) > 0)


if __name__ == "__main__":
    main()
