"""The error of everything that reads, checks or maps foreign weights."""


class WeightsError(ValueError):
    """A checkpoint that cannot be used; the message names the file, the field and the mend."""
