"""Start-up of detection: `retinanet-jax detect` on one image, from its start to its exit.

The first start of a round has an empty cache, the second the cache of the first. The image is
synthetic, 640 x 480. Without --model the network is a ResNet-50 with random weights and 80 classes,
read from a file in torchvision's layout.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.contestants import SCRIPTS
from benchmarks.data import write_images
from benchmarks.rows import Row, compare_starts


def add_arguments(parser) -> None:
    parser.add_argument("--model", type=Path, help="workdir of a run, or a file of weights")


def run(arguments) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder)
        image, model = folder / "images/0.jpg", arguments.model
        if model is None:
            model = folder / "random.safetensors"
            # In another process: the peak of a child counts the memory of its parent.
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                pool.submit(write_random_network, model).result()
        rounds = [_round(image, model.absolute(), folder / str(i)) for i in range(arguments.rounds)]
    network = "ResNet-50, random weights" if arguments.model is None else arguments.model.name
    return compare_starts(f"detect, one image, {network}", rounds, "jaxlib", "flax")


def write_random_network(path: Path) -> None:
    """A file of weights in torchvision's layout."""
    from benchmarks.detect_ours import random_detector
    from retinanet_jax.weights.torchvision_export import export_torchvision

    detector = random_detector(640, "resnet50", 1)
    export_torchvision(detector.variables, detector.config, path)


def _round(image: Path, model: Path, home: Path) -> tuple[dict[str, float], dict[str, float]]:
    home.mkdir()
    # The cache is below the home folder; JAX's variable would replace it.
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    environment["HOME"] = str(home)
    command = [sys.executable, "-m", "retinanet_jax", "detect", str(image), f"--model={model}"]
    return tuple(
        _start([*command, f"--out={home / out}"], environment, home / f"{out}.log")
        for out in ("first", "second")
    )


def _start(command: list[str], environment: dict[str, str], log: Path) -> dict[str, float]:
    """Times and peak memory of a whole process (Unix)."""
    start = time.perf_counter()
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, cwd=SCRIPTS.parent, stdout=output, stderr=output, env=environment
        )
        _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the detection failed:\n{log.read_text(encoding='utf-8')}")
    memory = used.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3 / 1.024)
    return {"wall_s": wall, "cpu_s": used.ru_utime + used.ru_stime, "memory_mb": memory}
