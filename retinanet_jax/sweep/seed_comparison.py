"""Comparisons by seed: trials that share a seed share initial weights and data order.

The differences of pairs vary less than the values themselves. The test is Student's t for paired
samples, two-sided: p is the probability of a mean difference at least this far from 0 if both
settings were equally good and the differences normal. With three seeds only large effects reach a
p below .05; of many comparisons, one in twenty does by chance.
"""

import json
import statistics
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from retinanet_jax.config.settings import Config, ConfigError, read_config_file
from retinanet_jax.runtime.measurement import check_measured_alike
from retinanet_jax.runtime.workdir import WorkdirError
from retinanet_jax.sweep.markdown import number_text, table_text
from retinanet_jax.sweep.seed_groups import Group, settings_columns
from retinanet_jax.sweep.trials import FINISHED, PLAN_FILE, Trial, read_plan
from retinanet_jax.training.run_checks import changed_values

Summary = Mapping[str, float | None]


class PairedTest(NamedTuple):
    """The differences of pairs, second minus first.

    pairs: their number, at least 1.
    mean: mean of the differences.
    deviation: standard deviation of the differences, with n - 1; None for one pair.
    p: p-value of the paired t-test; None for one pair, or if all differences are equal.
    """

    pairs: int
    mean: float
    deviation: float | None
    p: float | None


def paired_test(first: Sequence[float], second: Sequence[float]) -> PairedTest:
    """The test of equally many values, at least one; those at the same place are a pair."""
    differences = [b - a for a, b in zip(first, second, strict=True)]
    mean = statistics.fmean(differences)
    if len(differences) == 1:
        return PairedTest(1, mean, None, None)
    deviation = statistics.stdev(differences)
    if deviation < 1e-12:  # rounding
        return PairedTest(len(differences), mean, deviation, None)
    from scipy.stats import ttest_rel  # here: scipy.stats takes a second to import

    return PairedTest(len(differences), mean, deviation, float(ttest_rel(second, first).pvalue))


def paired_test_by_key(
    first: Mapping[Any, float], second: Mapping[Any, float]
) -> PairedTest | None:
    """The test of the values that have the same key; None if there are none."""
    common = [key for key in first if key in second]
    if not common:
        return None
    return paired_test([first[key] for key in common], [second[key] for key in common])


def difference_text(test: PairedTest | None) -> str:
    """'+.036 ± .010, p .021', or '' without pairs."""
    if test is None:
        return ""
    text = ("+" if test.mean >= 0 else "-") + number_text(abs(test.mean))
    if test.deviation is not None:
        text += f" ± {number_text(test.deviation)}"
    return text if test.p is None else f"{text}, p {number_text(test.p)}"


def differences_table(groups: Sequence[Group], names: Sequence[str]) -> str:
    """Each combination of settings minus the first one, as Markdown; '' without two common seeds.

    Args:
        groups: groups of trials; the first is the baseline.
        names: names of the metrics.
    """
    rows, most = [], 0
    heads, cells = settings_columns(groups)
    for first, group in zip(cells[1:], groups[1:], strict=True):
        tests = [paired_test_by_key(groups[0].by_seed(name), group.by_seed(name)) for name in names]
        pairs = max((test.pairs for test in tests if test is not None), default=0)
        most = max(most, pairs)
        rows.append([*first, str(pairs), *map(difference_text, tests)])
    return table_text([*heads, "seeds", *names], rows) if most > 1 else ""


def compare(first: Path, second: Path, names: Sequence[str | Path] = ()) -> str:
    """Two sweeps or runs, as Markdown: the fields that differ, and for each metric both means, the
    difference and p.

    Trials with equal settings and equal seed are a pair; those of only one side are counted and
    left out. Settings are the fields that the sweep varies; a run has none but the seed. Pairs with
    the same seed are not independent, so their mean counts once: the test is over seeds.

    Args:
        first, second: folders.
        names: names of both in the text, if the folders are downloads; by default their paths.

    Raises:
        WorkdirError: a folder has no results.
        ConfigError: there are no pairs, or the runs were evaluated on different data.
    """
    ours, theirs = _finished(first), _finished(second)
    name_a, name_b = names or (first, second)
    check_measured_alike(first, second, (name_a, name_b))
    common = [key for key in ours if key in theirs]
    if not common:
        raise ConfigError(
            f"--compare: {name_a} and {name_b} have no finished trials with equal settings and seed"
        )
    alone = len(ours) + len(theirs) - 2 * len(common)
    rows = []
    for name in ours[common[0]].summary:
        a, b = _means_by_seed([(ours[key], theirs[key]) for key in common], name)
        if a:
            means = number_text(statistics.fmean(a)), number_text(statistics.fmean(b))
            rows.append([name, str(len(a)), *means, difference_text(paired_test(a, b))])
    lines = [
        f"A: {name_a}",
        f"B: {name_b}",
        _changes(ours[common[0]].config, theirs[common[0]].config),
        f"Pairs: {len(common)}; trials without a pair: {alone}.",
    ]
    return "\n\n".join([*lines, table_text(["metric", "seeds", "A", "B", "B - A"], rows)]) + "\n"


class _Finished(NamedTuple):
    config: Config
    summary: Summary


def _finished(workdir: Path) -> dict[Hashable, _Finished]:
    """The finished trials, by their settings with the seed."""
    if (workdir / PLAN_FILE).exists():
        ended = [(trial, trial.end()) for trial in read_plan(workdir)]
        return {
            _key(trial.settings | {"seed": trial.config().seed}): _Finished(
                _config_of_run(trial), end.summary
            )
            for trial, end in ended
            if end.state == FINISHED
        }
    try:
        summary = json.loads((workdir / "results.json").read_text(encoding="utf-8"))["summary"]
        config = read_config_file(workdir / "config.json")
    except (OSError, ValueError, KeyError) as error:
        raise WorkdirError(
            f"{workdir}: no results of a sweep or a run; use a folder with sweep.json, or with "
            "results.json and config.json"
        ) from error
    return {_key({"seed": config.seed}): _Finished(config, summary)}


def _config_of_run(trial: Trial) -> Config:
    """With numbers in place of 'auto'; that of the plan if the run wrote none."""
    path = trial.workdir / "config.json"
    return read_config_file(path) if path.exists() else trial.config()


def _key(settings: Mapping[str, Any]) -> Hashable:
    return tuple(sorted(settings.items()))


def _means_by_seed(
    pairs: Sequence[tuple[_Finished, _Finished]], name: str
) -> tuple[list[float], list[float]]:
    """For each seed, the means over its pairs in which a metric is defined on both sides."""
    by_seed: dict[int, list[tuple[float, float]]] = {}
    for pair in pairs:
        a, b = (side.summary.get(name) for side in pair)
        if a is not None and b is not None:
            by_seed.setdefault(pair[0].config.seed, []).append((a, b))
    means = [list(map(statistics.fmean, zip(*values, strict=True))) for values in by_seed.values()]
    return [mean[0] for mean in means], [mean[1] for mean in means]


def _changes(first: Config, second: Config) -> str:
    """The fields in which the configs of a pair differ, as lines."""
    changed = changed_values(first, second).items()
    lines = [f"- config.{field}: A {a!r}, B {b!r}" for field, (a, b) in changed]
    return "Settings that differ:\n" + "\n".join(lines) if lines else "No setting differs."
