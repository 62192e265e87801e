"""Converts stored configurations of earlier versions to the current fields."""

from typing import Any

_RENAMED = {
    ("evaluation", "pictures"): "example_images",
    ("evaluation", "picture_score"): "example_min_score",
}
# Here 0 or an empty text meant "off", which is None now.
_OFF_WHEN_EMPTY = (
    ("model", "pretrained"),
    ("loss", "hard_examples"),
    ("loss", "negatives_per_positive"),
    ("optimizer", "gradient_clip"),
    ("optimizer", "ema_decay"),
    ("train", "evaluate_every"),
    ("train", "watchdog_minutes"),
)


def migrate(values: dict[str, Any]) -> dict[str, Any]:
    """Returns a stored configuration (a nested dict from JSON) with the fields of this version.

    Values of this version are returned unchanged.
    """
    values = {k: dict(v) if isinstance(v, dict) else v for k, v in values.items()}
    for (section, old), new in _RENAMED.items():
        if old in values.get(section, {}):
            values[section][new] = values[section].pop(old)
    for section, field in _OFF_WHEN_EMPTY:
        if field in values.get(section, {}):
            values[section][field] = values[section][field] or None
    return values
