"""Start-up: from the start of the process to the first logged step, without and with a cache.

The first start of a round has an empty cache_dir, the second the cache_dir of the first. Both end
when the first step is logged.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.contestants import SCRIPTS, peak_memory
from benchmarks.rows import Row, compare_starts

TIMEOUT = 1800.0  # seconds for a start


def add_arguments(parser) -> None:
    parser.add_argument("--config", default="experiments/shapes.py:tiny", help="what to train")


def run(arguments) -> list[Row]:
    rounds = [_round(arguments.config) for _ in range(arguments.rounds)]
    return compare_starts(arguments.config, rounds, "jaxlib", "flax", "orbax-checkpoint")


def _round(config: str) -> tuple[dict[str, float], dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        return tuple(_start(config, Path(folder) / name, cache) for name in ("first", "second"))


def _start(config: str, workdir: Path, cache: Path) -> dict[str, float]:
    """Times and peak memory of one training until its first step is logged."""
    command = [sys.executable, "-m", "retinanet_jax.main", f"--config={config}"]
    command += [f"--workdir={workdir}", f"--config.data.cache_dir={cache}"]
    command += ["--config.train.log_every=1"]
    # It would replace cache_dir.
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    start = time.perf_counter()
    with (
        open(workdir.with_suffix(".log"), "w+", encoding="utf-8") as output,
        subprocess.Popen(
            command, cwd=SCRIPTS.parent, stdout=output, stderr=output, env=environment
        ) as process,
    ):
        try:
            _wait_for(lambda: _has_a_line(workdir / "metrics.jsonl"), process, output)
            return {"wall_s": time.perf_counter() - start, **_used_by(process.pid)}
        finally:
            process.kill()


def _wait_for(done: Callable[[], bool], process: subprocess.Popen, output) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not done():
        if process.poll() is not None or time.monotonic() > deadline:
            output.seek(0)
            raise RuntimeError(f"the training ended before its first step:\n{output.read()}")
        time.sleep(0.02)


def _has_a_line(path: Path) -> bool:
    return path.exists() and "\n" in path.read_text(encoding="utf-8")


def _used_by(pid: int) -> dict[str, float]:
    """CPU time and peak memory of a process and all its threads so far (Linux)."""
    # After the name in brackets, fields 14 and 15 of proc(5) are the 12th and 13th.
    ticks = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
    return {
        "cpu_s": sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"),
        "memory_mb": peak_memory(pid) / 1e6,
    }
