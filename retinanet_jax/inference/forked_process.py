"""Detects processes forked from one that had used JAX, in which JAX has lost its threads."""

import os

_MESSAGE = (
    "Detector: this process was forked from one that had used JAX, so it would hang; start "
    "processes with multiprocessing.get_context('spawn'), or use threads"
)
_started_in: int | None = None  # the process that used JAX; a forked child inherits the number


def is_forked() -> bool:
    """Whether a parent of this process used JAX before the fork."""
    return _started_in not in (None, os.getpid())


def check_not_forked() -> None:
    """Notes that this process uses JAX.

    Raises:
      RuntimeError: a parent of this process used JAX before the fork.
    """
    global _started_in
    if is_forked():
        raise RuntimeError(_MESSAGE)
    _started_in = os.getpid()
