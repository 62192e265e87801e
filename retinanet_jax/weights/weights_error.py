"""The error of everything that reads, checks or maps foreign weights."""


class WeightsError(ValueError):
    """A checkpoint that cannot be used; the message names the file, the field and the fix."""


def shown(name: str) -> str:
    """A name out of the file, safe and short enough for a message."""
    return ascii(name[:80])[1:-1]
