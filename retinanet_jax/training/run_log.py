"""What a run tells: a progress bar, metrics.jsonl, TensorBoard, images, a table at the end."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from tensorboardX import SummaryWriter

from retinanet_jax.runtime.workdir import write_whole

METRICS_FILE = "metrics.jsonl"


class _TwoLines(Progress):
    """The bar on one line, the numbers on the next: both fit into 80 columns."""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield from (Text(task.fields["text"]) for task in self.tasks)


class RunLog:
    """Writes the log of one run; a context manager.

    On a terminal there is a progress bar; elsewhere each logged step is one line of text. Only one
    process of a run has an active log; the others' does nothing.

    Args:
        workdir: gets metrics.jsonl, tensorboard/ and images/.
        start_step: step at which this run starts. Lines of later steps, left by a run that ended
            without a checkpoint, are taken out, so that no step is in the file twice. None only
            adds lines, as beside a run that writes into the same file.
        total_steps: the last step.
        active: False on all processes but the first.
    """

    def __init__(
        self, workdir: Path, start_step: int | None, total_steps: int, active: bool = True
    ):
        self.workdir, self.active = Path(workdir), active
        self.console = Console(quiet=not active, soft_wrap=True)
        self._total, self._told = total_steps, False
        if not active:
            return
        self._path = self.workdir / METRICS_FILE
        if start_step is None:
            _end_last_line(self._path)
        else:
            _take_out_later_steps(self._path, start_step)
        self._tensorboard = SummaryWriter(
            str(self.workdir / "tensorboard"),
            purge_step=None if start_step is None else start_step + 1,
            flush_secs=10,
        )
        self._progress = _TwoLines(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self.console,
            disable=not self.console.is_terminal,
            speed_estimate_period=120,
        )
        self._task = self._progress.add_task(
            "", total=total_steps, completed=start_step or 0, text=""
        )
        self._progress.start()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        if self.active:
            self._progress.stop()
            if self._tensorboard_lives():
                self._tensorboard.close()

    def advance(self, step: int) -> None:
        """Moves the progress bar to `step`."""
        if self.active:
            self._progress.update(self._task, completed=step)

    def scalars(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Writes one line of metrics.jsonl and the same scalars for TensorBoard.

        Args:
            step: updates done.
            kind: 'train' or 'eval'; the prefix in TensorBoard.
            values: plain numbers by name; one that is not finite becomes null in the file.
        """
        if not self.active:
            return
        finite = {k: float(v) if np.isfinite(v) else None for k, v in values.items()}
        line = {"step": step, "kind": kind, "time": round(time.time(), 3), **finite}
        # Opened for each line: another process may have put a new file there.
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in values.items():
            if self._tensorboard_lives():
                self._tensorboard.add_scalar(f"{kind}/{name}", value, step)

    def has_evaluation(self, step: int) -> bool:
        """Whether metrics.jsonl holds an evaluation of `step`."""
        entries = _entries(self.workdir / METRICS_FILE)
        return any(entry["kind"] == "eval" and entry["step"] == step for _, entry in entries)

    def progress_line(self, step: int, text: str) -> None:
        """Shows the numbers of a step: beside the bar, or as a line where there is no terminal."""
        if not self.active:
            return
        self._progress.update(self._task, completed=step, text=text)
        if not self.console.is_terminal:
            self.console.print(f"step {step}/{self._total}  {text}")

    def say(self, text: str) -> None:
        """One line for the person at the terminal."""
        self.console.print(text, highlight=False, markup=False)

    def image(self, step: int, name: str, image: np.ndarray) -> Path:
        """Writes an RGB image [h, w, 3] to images/ and to TensorBoard; returns its path."""
        path = self.workdir / "images" / f"{name}_{step:06d}.png"
        if self.active:
            import cv2

            path.parent.mkdir(parents=True, exist_ok=True)
            if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
                raise OSError(f"{path}: the image could not be written")
            if self._tensorboard_lives():
                self._tensorboard.add_image(name, image, step, dataformats="HWC")
        return path

    def table(self, title: str, rows: Mapping[str, float]) -> None:
        """Prints names and numbers as a table."""
        table = Table(title=title, title_justify="left")
        table.add_column("metric")
        table.add_column("value", justify="right")
        for name, value in rows.items():
            table.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
        self.console.print(table)

    def _tensorboard_lives(self) -> bool:
        # One failed write ends tensorboardX's thread, and the next values would wait for ever.
        lives = self._tensorboard.file_writer.event_writer._worker.is_alive()
        if not lives and not self._told:
            self._told = True
            self.say("warning: TensorBoard's file could not be written; metrics.jsonl goes on")
        return lives


def _entries(path: Path) -> Iterator[tuple[str, dict]]:
    """The lines of metrics.jsonl, as they are and read."""
    if path.exists():
        for line in path.read_text().splitlines():
            # The last line may have been cut by a crash.
            with contextlib.suppress(ValueError):
                yield line, json.loads(line)


def _take_out_later_steps(path: Path, start_step: int) -> None:
    kept = [line for line, entry in _entries(path) if entry["step"] <= start_step]
    write_whole(path, "".join(line + "\n" for line in kept))


def _end_last_line(path: Path) -> None:
    """A line that a crash cut must not swallow the next one."""
    content = path.read_bytes() if path.exists() else b""
    if content and not content.endswith(b"\n"):
        with path.open("a") as file:
            file.write("\n")
