"""The process of a worker: runs the trials that its standard input names; see workers.py.

    python -m retinanet_jax.sweep.worker DIR [CORE ...]

What a trial says goes to log.txt in its folder.
"""

import os
import queue
import signal
import sys
import threading
from pathlib import Path

from retinanet_jax.runtime.preemption import EXIT_CODE, Preempted
from retinanet_jax.sweep.trial import run_trial
from retinanet_jax.sweep.trials import read_plan
from retinanet_jax.training.setup import RunCache


def main(workdir: Path, cores: set[int]) -> None:
    """Works until the input ends."""
    if cores:
        os.sched_setaffinity(0, cores)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    trials, cache, orders = {t.name: t for t in read_plan(workdir)}, RunCache(), Orders()
    while name := orders.next():
        log = os.open(trials[name].workdir / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log, stream.fileno())
        os.close(log)
        run_trial(trials[name], cache)
        orders.done()
        print(name, file=answers, flush=True)


class Orders:
    """The lines of the standard input; where they end in mid-work, SIGTERM asks to stop."""

    def __init__(self):
        self._names: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._at_work = False
        threading.Thread(target=self._read, daemon=True).start()

    def next(self) -> str:
        """The next line, as soon as it comes; '' where there are no more."""
        return self._names.get()

    def done(self) -> None:
        """The work of the line is done."""
        self._at_work = False

    def _read(self) -> None:
        for line in sys.stdin:
            self._at_work = True
            self._names.put(line.rstrip("\n"))
        self._names.put("")
        if self._at_work:
            os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), {int(core) for core in sys.argv[2:]})
    except Preempted:
        sys.exit(EXIT_CODE)
