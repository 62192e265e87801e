"""Python's garbage collector, for a command that imports and traces a lot at its start."""

import atexit
import gc


def collect_rarely() -> None:
    """Makes the collector run less often, and not over all objects at the exit.

    By default it runs after 700 new containers. Importing JAX and tracing a network make hundreds
    of thousands, nearly all of which stay: in a short command, a tenth of the time was spent on
    looking through them, and another tenth at the exit. Objects outside of reference cycles, such
    as batches, are freed at once, as before.
    """
    gc.set_threshold(50_000, 20, 100)
    atexit.register(gc.freeze)
