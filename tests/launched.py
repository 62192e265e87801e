"""Runs of several real processes on this machine, each with simulated devices, over loopback."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from quick import xla_flags

ROOT = Path(__file__).parent.parent
STEPS = 20


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def launch(workdir: Path, processes: int, devices: int, *more: str) -> list[subprocess.Popen]:
    """Starts a run in `processes` of `devices` each; number N prints to WORKDIR.N.txt.

    NUMBER in `more` stands for the number of the process.
    """
    port, started = free_port(), []
    for number in range(processes):
        where = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={processes}"]
        where += [f"--process_id={number}", "--coordinator_timeout=120"]
        command = [
            *(sys.executable, "-m", "retinanet_jax.main", "--config=tests/small.py"),
            *(where if processes > 1 else ()),
            *(f"--workdir={workdir}", f"--config.data.cache_dir={workdir.parent / 'cache'}"),
            *(f"--config.train.steps={STEPS}", "--config.train.batch_size=8"),
            *("--config.train.checkpoint_every=3", "--config.evaluation.batch_size=8"),
            # Small steps: rounding, which differs with the order of sums, does not grow.
            *("--config.optimizer.learning_rate=0.001", "--config.data.shapes.num_eval=21"),
            "--config.postprocess.score_threshold=0.0",
            *(word.replace("NUMBER", str(number)) for word in more),
        ]
        variables = {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": xla_flags(devices),
            # XLA on the CPU splits loops by its number of threads, by default the number of
            # devices or cores; with another number the results differ by rounding.
            "NPROC": str(processes * devices),
            "PJRT_NPROC": str(processes * devices),
        }
        with output_of(workdir, number).open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **variables},
                stdout=output,
                stderr=output,
            )
        started.append(process)
    return started


def output_of(workdir: Path, number: int) -> Path:
    return workdir.with_name(f"{workdir.name}.{number}.txt")


def end(processes: list[subprocess.Popen], seconds: float) -> list[int]:
    """The exit codes; processes that run longer than `seconds` are killed, and fail the test."""
    deadline = time.monotonic() + seconds
    try:
        return [process.wait(max(0.1, deadline - time.monotonic())) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run(workdir: Path, processes: int, devices: int, *more: str) -> None:
    """Runs to the end, without an error."""
    codes = end(launch(workdir, processes, devices, *more), 900)
    output = "\n".join(output_of(workdir, number).read_text() for number in range(processes))
    assert codes == [0] * processes, output
