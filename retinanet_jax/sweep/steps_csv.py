"""The history of all trials in one table: a row for each trial, seed and step."""

import csv
import io
import json
from collections.abc import Iterator, Sequence

from retinanet_jax.sweep.trials import Trial
from retinanet_jax.training.run_log import METRICS_FILE, read_metrics


def steps_csv(trials: Sequence[Trial]) -> str:
    """CSV with the columns trial, each field of the sweep, seed, step, and each logged number.

    The numbers are those of metrics.jsonl, 'train/loss' and 'eval/AP' for instance; a cell is empty
    where a step has none.
    """
    fields = list(dict.fromkeys(field for trial in trials for field in trial.combination))
    rows = [(trial, step, values) for trial in trials for step, values in read_steps(trial)]
    names = list(dict.fromkeys(name for *_, values in rows for name in values))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["trial", *fields, "seed", "step", *names])
    # A trial whose folder was deleted has no config, and no rows.
    seeds = {name: _seed(trial) for name, trial in {t.name: t for t, *_ in rows}.items()}
    for trial, step, values in rows:
        settings = [trial.settings.get(field, "") for field in fields]
        numbers = [values.get(name) for name in names]
        writer.writerow([trial.name, *settings, seeds[trial.name], step, *numbers])
    return file.getvalue()


def _seed(trial: Trial) -> int:
    return json.loads(trial.config_file.read_text(encoding="utf-8"))["seed"]


def read_steps(trial: Trial) -> Iterator[tuple[int, dict[str, float | None]]]:
    """Each step of a trial with its numbers, rising."""
    steps: dict[int, dict[str, float | None]] = {}
    for entry in read_metrics(trial.workdir / METRICS_FILE):
        step, kind = entry.pop("step"), entry.pop("kind")
        entry.pop("time", None)
        entry.pop("measured", None)
        numbers = {f"{kind}/{name}": value for name, value in entry.items()}
        steps.setdefault(step, {}).update(numbers)
    yield from sorted(steps.items())
