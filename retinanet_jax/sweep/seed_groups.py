"""Groups of trials that differ only in the seed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from retinanet_jax.sweep.grid import Settings
from retinanet_jax.sweep.markdown import value_text
from retinanet_jax.sweep.trials import End, Trial


class Group(NamedTuple):
    """Trials that differ only in the seed.

    settings: without the seed.
    paper: see Trial.
    ends: how each trial ended.
    seeds: seed of each trial; None if the sweep does not set it.
    """

    settings: Settings
    paper: dict[str, Any]
    ends: list[End]
    seeds: list[int | None]

    def values(self, name: str) -> list[float]:
        """A number of each finished trial. Undefined values are left out."""
        numbers = (end.summary.get(name) for end in self.ends)
        return [number for number in numbers if number is not None]

    def by_seed(self, name: str) -> dict[int | None, float]:
        """The same numbers by the seed of the trial."""
        numbers = (
            (seed, e.summary.get(name)) for seed, e in zip(self.seeds, self.ends, strict=True)
        )
        return {seed: number for seed, number in numbers if number is not None}


def group_trials(trials: list[Trial], ends: list[End]) -> list[Group]:
    """Groups of the trials, in the order of the plan."""
    groups: dict[tuple, Group] = {}
    for trial, end in zip(trials, ends, strict=True):
        key = tuple(sorted(trial.combination.items()))
        group = groups.setdefault(key, Group(trial.combination, trial.paper, [], []))
        group.ends.append(end)
        group.seeds.append(trial.settings.get("seed"))
    return list(groups.values())


def settings_columns(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """The first columns of a table of groups: their heads, and the cells of each group.

    They are the row of the paper's table, where the trials are such rows, and the fields that the
    sweep sets.
    """
    titled = ["row"] if any("row" in group.paper for group in groups) else []
    fields = list(dict.fromkeys(field for group in groups for field in group.settings))
    cells = [
        [
            *(group.paper.get(title, "") for title in titled),
            *(value_text(group.settings.get(field, "")) for field in fields),
        ]
        for group in groups
    ]
    return [*titled, *fields], cells
