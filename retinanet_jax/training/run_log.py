"""The log of a run: progress bar, metrics.jsonl, loggers, example images, final table."""

import contextlib
import datetime
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from retinanet_jax.runtime.workdir import write_whole
from retinanet_jax.training.loggers import Logger, StopRun

METRICS_FILE = "metrics.jsonl"


class _TwoLines(Progress):
    """The bar on one line, the metrics on the next: each fits into 80 columns."""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield from (Text(task.fields["text"]) for task in self.tasks)


class RunLog:
    """Writes the log of one run; a context manager.

    On a terminal, it shows a progress bar; elsewhere, it prints one line per logged step. Only one
    process of a run has an active log; on the others, the methods do nothing. A logger that raises
    an error is switched off with one warning, and the run continues.

    Args:
        workdir: folder for metrics.jsonl and images/.
        start_step: step at which this run starts. Lines of later steps, left by a run that ended
            without a checkpoint, are removed, so that the file has each step once. None keeps all
            lines, for an evaluation while another process trains in `workdir`.
        total_steps: the last step.
        active: True on the first process.
        loggers: loggers that also get scalars, images and the config; see loggers.py. They are
            closed at the end.
    """

    def __init__(
        self,
        workdir: Path,
        start_step: int | None,
        total_steps: int,
        active: bool = True,
        loggers: Iterable[Logger] = (),
    ):
        self.workdir, self.active = Path(workdir), active
        self.console = Console(quiet=not active, soft_wrap=True)
        self._total, self._loggers = total_steps, list(loggers)
        if not active:
            return
        self._path = self.workdir / METRICS_FILE
        if start_step is None:
            _end_last_line(self._path)
        else:
            _remove_later_steps(self._path, start_step)
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
            self._to_loggers(lambda logger: getattr(logger, "close", lambda: None)())

    def advance(self, step: int) -> None:
        """Moves the progress bar to `step`."""
        if self.active:
            self._progress.update(self._task, completed=step)

    def scalars(
        self,
        step: int,
        kind: str,
        values: Mapping[str, float | None],
        measured: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes one line of metrics.jsonl, and passes the same scalars to the loggers.

        Args:
            step: number of updates done.
            kind: 'train' or 'eval'; the prefix of the names in the loggers.
            values: values by name. None (undefined) and numbers that are not finite become null in
                the file. The loggers do not get None.
            measured: what they were measured on; only in the file.
        """
        if not self.active:
            return
        defined = {name: value for name, value in values.items() if value is not None}
        finite = {name: float(value) for name, value in defined.items() if np.isfinite(value)}
        line = {"step": step, "kind": kind, "time": round(time.time(), 3)}
        line |= {name: finite.get(name) for name in values}
        if measured is not None:
            line["measured"] = dict(measured)
        # Opened for each line: another process may have replaced the file.
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        scalars = {f"{kind}/{name}": float(value) for name, value in defined.items()}
        self._to_loggers(lambda logger: logger.log_scalars(step, scalars))

    def config(self, config: Mapping[str, Any]) -> None:
        """Passes the settings, as nested dicts, to the loggers."""
        self._to_loggers(lambda logger: logger.log_config(config))

    def has_evaluation(self, step: int) -> bool:
        """Whether metrics.jsonl has an evaluation of `step`."""
        entries = _entries(self.workdir / METRICS_FILE)
        return any(entry["kind"] == "eval" and entry["step"] == step for _, entry in entries)

    def progress_line(self, step: int, text: str, seconds_left: float = 0.0) -> None:
        """Shows the metrics of a step below the bar, or as a line if there is no terminal.

        The line includes `seconds_left`; the bar has its own estimate.
        """
        if not self.active:
            return
        self._progress.update(self._task, completed=step, text=text)
        if not self.console.is_terminal:
            left = f"  {datetime.timedelta(seconds=round(seconds_left))} left"
            self.console.print(
                f"step {step}/{self._total}  {text}{left if seconds_left else ''}", highlight=False
            )

    def message(self, text: str) -> None:
        """Prints a message."""
        self.console.print(text, highlight=False, markup=False)

    def image(self, step: int, name: str, image: np.ndarray) -> Path:
        """Writes an RGB image [h, w, 3] to images/ and to the loggers; returns its path."""
        path = self.workdir / "images" / f"{name}_{step:06d}.png"
        if self.active:
            import cv2

            path.parent.mkdir(parents=True, exist_ok=True)
            if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
                raise OSError(f"{path}: the image could not be written")
            self._to_loggers(lambda logger: logger.log_images(step, {name: image}))
        return path

    def table(self, title: str, rows: Mapping[str, float | None]) -> None:
        """Prints names and values as a table; a dash for None (undefined)."""
        table = Table(title=title, title_justify="left")
        table.add_column("metric")
        table.add_column("value", justify="right")
        for name, value in rows.items():
            table.add_row(name, "-" if value is None else f"{value:.4f}")
        self.console.print(table)

    def _to_loggers(self, call: Callable[[Logger], object]) -> None:
        """Calls each logger; one that raises gets no further calls. StopRun ends the run."""
        if not self.active:
            return
        for logger in tuple(self._loggers):
            try:
                call(logger)
            except StopRun:
                raise
            except Exception as error:
                self._loggers.remove(logger)
                self.message(
                    f"warning: {type(logger).__name__} is switched off after an error "
                    f"({type(error).__name__}: {error}); the run continues, and {METRICS_FILE} "
                    "has all metrics"
                )


def log_lines(log: RunLog, texts: list[str]) -> str:
    """Logs texts, each once and without the empty ones; returns them as one text."""
    text = "\n".join(dict.fromkeys(filter(None, texts)))
    if text:
        log.message(text)
    return text


def _entries(path: Path) -> Iterator[tuple[str, dict]]:
    """The lines of metrics.jsonl, as text and parsed."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            # A crash may have cut the last line.
            with contextlib.suppress(ValueError):
                yield line, json.loads(line)


def read_metrics(path: Path) -> list[dict]:
    """Reads the lines of a metrics.jsonl; returns none if the file does not exist."""
    return [entry for _, entry in _entries(path)]


def _remove_later_steps(path: Path, start_step: int) -> None:
    kept = [line for line, entry in _entries(path) if entry["step"] <= start_step]
    write_whole(path, "".join(line + "\n" for line in kept))


def _end_last_line(path: Path) -> None:
    """Ends a line that a crash cut, so that the next one starts on a line of its own."""
    content = path.read_bytes() if path.exists() else b""
    if content and not content.endswith(b"\n"):
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")
