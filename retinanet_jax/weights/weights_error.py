"""The error of everything that reads, checks or maps public weights."""


class WeightsError(ValueError):
    """Weights that cannot be used; the message names the file, the field and the fix."""


def shown(name: object) -> str:
    """A name out of a file, safe and short enough for a message."""
    return ascii(str(name)[:80])[1:-1]
