"""Words of messages."""


def counted(number: int, noun: str) -> str:
    """Returns '1 image' or '1,234 images'."""
    return f"{number:,} {noun if number == 1 else f'{noun}s'}"
