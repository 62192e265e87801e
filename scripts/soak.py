"""Training steps, evaluations and Detector calls for hours; records what must not grow.

    python scripts/soak.py --workdir=runs/soak [--rounds=40] [--minutes=600] [--plot=soak.svg]

Each round trains a small network on shapes of 32 pixels for 500 steps with 5 checkpoints and
evaluations, and then calls a Detector 1250 times on images of changing sizes: 40 rounds are 20,000
steps, 200 evaluations and 50,000 calls, all in one process. No round starts after --minutes.

Every two seconds it writes resident memory, open files, threads, and the time of a step or call to
WORKDIR/soak.csv. The table at the end compares the second tenth of the rows with the last tenth.
"""

import argparse
import contextlib
import csv
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from retinanet_jax.config.settings import Config, default_config, from_config_dict
from retinanet_jax.inference.detector import Detector
from retinanet_jax.reports.plot_style import COLORS, styled, svg_file
from retinanet_jax.training.run import train_and_evaluate
from retinanet_jax.training.run_log import METRICS_FILE
from retinanet_jax.training.setup import RunCache

PERIOD_S = 2.0
STEPS, EVALUATIONS, CALLS = 500, 5, 1250  # of a round
COLUMNS = {
    "memory_mb": "resident memory, MB",
    "open_files": "open files",
    "threads": "threads",
    "milliseconds": "time of a step or call, ms",
}
TRAINING, CALLING = "training steps", "Detector calls"


def soak_config(seed: int) -> Config:
    """A ResNet-18 up to C3 on shapes of 32 pixels, small enough for 20,000 steps on a CPU."""
    tree = default_config()
    fields = {
        "seed": seed,
        "data.shapes.image_size": (32, 32),
        "data.shapes.num_train": 1000,
        "data.shapes.num_eval": 16,
        "pipeline.min_side": 32,
        "pipeline.max_side": 48,
        "model.backbone": "resnet18",
        "model.norm": "batch",
        "model.frozen_stages": 0,
        "model.backbone_levels": (3,),
        "model.max_level": 4,
        "model.fpn_channels": 16,
        "model.head_channels": 16,
        "model.head_depth": 1,
        "anchors.size": 1.0,
        "optimizer.warmup_steps": 0,
        "train.steps": STEPS,
        "train.batch_size": 2,
        "train.log_every": 20,
        "train.checkpoint_every": STEPS // EVALUATIONS,
        "train.evaluate_every": STEPS // EVALUATIONS,
        "evaluation.batch_size": 8,
    }
    tree.update_from_flattened_dict(fields)
    return from_config_dict(tree)


class Recorder:
    """Writes a row of soak.csv every PERIOD_S seconds, in a thread.

    Attributes:
      rows: written so far.
      part: TRAINING or CALLING.
      run: workdir of the run that trains now.
      steps: of the runs before.
      calls: of the Detector so far.
    """

    def __init__(self, workdir: Path):
        self._file, self._start = workdir / "soak.csv", time.perf_counter()
        self._stop = threading.Event()
        self.rows: list[dict] = []
        self.part, self.run, self.steps, self.calls = TRAINING, workdir, 0, 0
        self._last = (TRAINING, 0, self._start)

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Records while the block runs."""
        thread = threading.Thread(target=self._record)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _record(self) -> None:
        with self._file.open("w", encoding="utf-8", newline="") as file:
            fields = ("seconds", "part", "done", *COLUMNS)
            writer = csv.DictWriter(file, fields, lineterminator="\n")
            writer.writeheader()
            while not self._stop.wait(PERIOD_S):
                self.rows.append(self._measure())
                writer.writerow(self.rows[-1])
                file.flush()

    def _measure(self) -> dict:
        part, now = self.part, time.perf_counter()
        done = self.calls if part == CALLING else self.steps + last_step(self.run)
        before, count, then = self._last
        new = done - count if part == before else 0
        if new or part != before:
            self._last = part, done, now
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        return {
            "seconds": round(now - self._start, 1),
            "part": part,
            "done": done,
            "memory_mb": round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1),
            "open_files": len(os.listdir("/proc/self/fd")),
            "threads": len(os.listdir("/proc/self/task")),
            "milliseconds": round(1000 * (now - then) / new, 2) if new else "",
        }


def last_step(workdir: Path) -> int:
    """The step of the last whole line of metrics.jsonl."""
    path = workdir / METRICS_FILE
    lines = path.read_bytes().splitlines() if path.exists() else []
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            return json.loads(line)["step"]
    return 0


def call_detector(detector: Detector, rng: np.random.Generator, recorder: Recorder) -> None:
    """Calls with images of random sizes from 32 to 256 pixels, each fourth call with three."""

    def image() -> np.ndarray:
        return rng.integers(0, 256, (*rng.integers(32, 257, 2), 3), np.uint8)

    for call in range(CALLS):
        detector([image() for _ in range(3)] if call % 4 == 3 else image())
        recorder.calls += 1


def run_rounds(workdir: Path, rounds: int, minutes: float, recorder: Recorder) -> None:
    """Trains and calls in turn."""
    cache, detector, rng = RunCache(), None, np.random.default_rng(0)
    end = time.monotonic() + 60 * minutes
    for number in range(rounds):
        if time.monotonic() > end:
            return
        recorder.run, recorder.part = workdir / f"round_{number}", TRAINING
        train_and_evaluate(soak_config(seed=number), recorder.run, cache)
        detector = detector or Detector.from_checkpoint(recorder.run, batch_size=2)
        recorder.part, recorder.steps = CALLING, STEPS * (number + 1)
        call_detector(detector, rng, recorder)
        shutil.rmtree(recorder.run)


def tenth(rows: list[dict], which: int, column: str) -> float:
    """The median of a column over a tenth of the rows, 0 the first and 9 the last."""
    low, high = (round(len(rows) * n / 10) for n in (which, which + 1))
    values = [row[column] for row in rows[low : max(high, low + 1)] if row[column] != ""]
    return float(np.median(values)) if values else float("nan")


def summary(rows: list[dict]) -> str:
    """A table of the second and the last tenth of the steps and of the calls."""
    lines = ["| during | | second tenth | last tenth |", "|---|---|---|---|"]
    for part in (TRAINING, CALLING):
        chosen = [row for row in rows if row["part"] == part]
        for column, title in COLUMNS.items() if chosen else ():
            early, late = (tenth(chosen, which, column) for which in (1, 9))
            lines.append(f"| {chosen[-1]['done']:,} {part} | {title} | {early:g} | {late:g} |")
    return "\n".join(lines)


@styled
def draw(rows: list[dict]) -> Figure:
    """Each column over the minutes of the run, a point per row."""
    figure = Figure(figsize=(7.8, 7), layout="constrained")
    for axes, (column, title) in zip(
        figure.subplots(len(COLUMNS), sharex=True), COLUMNS.items(), strict=True
    ):
        for part, color in ((TRAINING, COLORS["accent"]), (CALLING, COLORS["second"])):
            known = [row for row in rows if row["part"] == part and row[column] != ""]
            minutes, values = [row["seconds"] / 60 for row in known], [r[column] for r in known]
            axes.plot(minutes, values, ".", color=color, ms=3, label=part)
        axes.set_title(title, loc="left", fontsize=12, color=COLORS["ink"])
        axes.set_ylim(bottom=0)
    axes.set_xlabel("minutes")
    axes.legend(loc="upper right", ncols=2)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", type=Path, required=True, help="new folder")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--minutes", type=float, default=600.0)
    parser.add_argument("--plot", type=Path, help="SVG file")
    options = parser.parse_args()
    options.workdir.mkdir(parents=True, exist_ok=True)
    recorder = Recorder(options.workdir)
    try:
        with recorder.recording():
            run_rounds(options.workdir, options.rounds, options.minutes, recorder)
    finally:
        print(summary(recorder.rows))
        if options.plot:
            options.plot.write_text(svg_file(draw(recorder.rows), "soak"), encoding="utf-8")


if __name__ == "__main__":
    main()
