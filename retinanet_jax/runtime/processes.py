"""Several processes as one run: they find each other, tell each other things, and end together.

`jax.distributed` connects them. Its key-value store, which lives in process 0, carries what they
tell each other beside the steps: what they have to agree on, and why one of them ended, since the
others would wait for it in the next step, on most devices for ever.
"""

import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from retinanet_jax.runtime.launch import Launch, ProcessesError

# Seconds. A process that sends no sign of life for so long is taken for dead, by jax.distributed.
HEARTBEAT = 30
# Seconds in which the others may end by themselves after they heard that one has ended.
GRACE = 5
DAY = 24 * 3600  # to wait for a process that prepares data: those that end are noticed anyway

GOES_ON = "Start all processes again with the same command: it goes on from the last checkpoint"

Tell = Callable[[BaseException], tuple[str, int] | None]


@contextlib.contextmanager
def joined(launch: Launch, tell: Tell) -> Iterator[None]:
    """Inside, this process is one of several, if it was started as such; before any device is used.

    An error that leaves the block ends all processes: the others say which it was, and where. One
    whose attribute `everywhere` is True, since all raise it at the same step, is let through.

    Args:
        tell: the words and the exit code for an error, or None for one that nobody expects.

    Raises:
        ProcessesError: they do not come together; names the address.
    """
    arguments = launch.find()
    if arguments is None:
        yield
        return
    with LastWords() as last_words:
        _connect(arguments, launch.timeout, last_words)
        if jax.process_count() == 1:
            yield
            return
        last_words.set(
            f"process {jax.process_index()} of {jax.process_count()} ended without a word: it "
            "crashed or was killed, or JAX ended it because another one is lost (above it says "
            f"which, if it knows). {GOES_ON}"
        )
        # While all are here: on the CPU the first collective fails if one comes 30 seconds late.
        multihost_utils.sync_global_devices("joined")
        largest(0).block_until_ready()
        with _Alarm(tell, last_words):
            yield


def _connect(arguments: dict[str, Any], timeout: int, last_words: "LastWords") -> None:
    address = arguments.get("coordinator_address") or "the address that the launcher tells"
    missing = (
        f"not all processes came together at {address} within {timeout} s "
        "(--coordinator_timeout): see that each was started, with the same --coordinator and "
        "--num_processes and a --process_id of its own"
    )
    last_words.set(missing)
    # JAX's notice of SIGTERM would take the place of ours (see preemption.py).
    jax.config.update("jax_enable_preemption_service", False)
    start = time.monotonic()
    if arguments.get("process_id"):
        _wait_for_coordinator(address, timeout)
    left = max(1, int(timeout - (time.monotonic() - start)))
    try:
        jax.distributed.initialize(
            **arguments, initialization_timeout=left, heartbeat_timeout_seconds=HEARTBEAT
        )
    except (RuntimeError, ValueError) as error:
        hint = missing
        if "RPC server" in str(error):
            hint = f"{address}: process 0 cannot open this port; take one that is free on its host"
        raise ProcessesError(f"{hint} ({error})") from error


def _wait_for_coordinator(address: str, timeout: int) -> None:
    """JAX itself ends with a dump of its stack where nobody answers."""
    host, port = address.rsplit(":", 1)
    deadline, reason = time.monotonic() + timeout, None
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            reason = error
            time.sleep(0.5)
    raise ProcessesError(
        f"{address}: no answer from process 0 within {timeout} s ({reason}): see that it was "
        "started, and that its host can be reached from here at this port"
    )


class LastWords:
    """A small process that speaks when this one ends without having said why; a context manager.

    Where another process of the run is lost, JAX aborts this one from outside Python.
    """

    _SPEAK = (
        "import signal, sys\n"
        "for number in (signal.SIGTERM, signal.SIGINT): signal.signal(number, signal.SIG_IGN)\n"
        "words = ''\n"
        "for words in sys.stdin: pass\n"
        "print(words.strip(), file=sys.stderr, end='\\n' * bool(words.strip()))\n"
    )

    def __enter__(self) -> "LastWords":
        command = [sys.executable, "-I", "-S", "-c", self._SPEAK]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.set("")
        self._process.communicate()

    def set(self, words: str) -> None:
        """Takes one line; '' where there is nothing to say."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(words + "\n")
            self._process.stdin.flush()


class _Alarm:
    """Tells the other processes why this one ends, and ends this one if another has ended."""

    def __init__(self, tell: Tell, last_words: LastWords):
        self._tell, self._last_words = tell, last_words
        self._ended, self._failed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._listen, name="processes", daemon=True)

    def __enter__(self) -> "_Alarm":
        self._thread.start()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None and not getattr(error, "everywhere", False):
            self._raise(error)
        self._ended.set()
        self._thread.join()

    def _raise(self, error: BaseException) -> NoReturn:
        short, code = self._tell(error) or (f"{type(error).__name__}: {error}", 1)
        words = short if self._tell(error) else "".join(traceback.format_exception(error))
        self._failed.set()
        if _is_of_devices(error):
            # Most likely another process is gone. What ends this one then knows more.
            time.sleep(HEARTBEAT + 2 * GRACE)
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            ended = {"process": jax.process_index(), "words": short, "code": code}
            _store().key_value_set(_key("ended"), json.dumps(ended))
        self._ended.set()
        if jax.process_index() == 0:
            time.sleep(2 * GRACE)  # the store, which the others ask, goes with this process
        self._end(words, code)

    def _listen(self) -> None:
        while not self._ended.wait(1.0):
            try:
                ended = json.loads(_store().key_value_try_get(_key("ended")))
            except jax.errors.JaxRuntimeError:
                continue  # nobody has
            self._failed.wait(GRACE)
            if not self._ended.is_set():
                self._end(f"process {ended['process']} ended: {ended['words']}", ended["code"])

    def _end(self, words: str, code: int) -> NoReturn:
        print(words, file=sys.stderr)
        self._last_words.set("")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # without waiting for the others, as JAX would


def _is_of_devices(error: BaseException | None) -> bool:
    """Whether an error comes from the devices, or was raised from one that does."""
    while error is not None and not isinstance(error, jax.errors.JaxRuntimeError):
        error = error.__cause__ or error.__context__
    return error is not None


def from_first(topic: str, value: Any) -> Any:
    """The value of process 0 (for JSON), on every process. Each topic is asked for once."""
    if jax.process_count() == 1:
        return value
    if jax.process_index() == 0:
        _store().key_value_set(_key(topic), json.dumps(value))
    return json.loads(_store().blocking_key_value_get(_key(topic), DAY * 1000))


def to_first(topic: str, value: Any) -> list[Any]:
    """The values (for JSON) of all processes on process 0, on the others their own."""
    if jax.process_index() > 0:
        _store().key_value_set(_key(topic, jax.process_index()), json.dumps(value))
        return [value]
    others = range(1, jax.process_count())
    texts = [_store().blocking_key_value_get(_key(topic, i), DAY * 1000) for i in others]
    return [value, *map(json.loads, texts)]


def check_same(topic: str, values: Mapping[str, Any]) -> None:
    """Waits until all processes are here, and sees that values (for JSON) are those of process 0.

    Raises:
        ProcessesError: names the values that are not.
    """
    # Here they wait as long as it takes; for a collective of the devices, some minutes.
    to_first(f"{topic} of all", jax.process_index())
    ours = json.loads(json.dumps(values))
    theirs = from_first(topic, ours)
    differences = [
        f"{name} is {ours[name]} here and {theirs.get(name)} there"
        for name in ours
        if ours[name] != theirs.get(name)
    ]
    if differences:
        raise ProcessesError(
            f"process {jax.process_index()} ({socket.gethostname()}) does not do what process 0 "
            f"does: {'; '.join(differences)}. Start all with the same command, on the same data "
            "and the same --workdir, in a folder that all hosts share"
        )


def largest(number: int) -> jax.Array:
    """The largest of the numbers that the processes give, on each of them; it comes later."""
    compiled, sharding = _compiled_largest()
    mine = np.full(jax.local_device_count(), number, np.int32)
    return compiled(jax.make_array_from_process_local_data(sharding, mine))


@functools.cache
def _compiled_largest() -> tuple[Callable, NamedSharding]:
    mesh = jax.make_mesh((jax.device_count(),), ("all",), axis_types=(AxisType.Auto,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    compiled = jax.jit(lambda x: x.max(), out_shardings=everywhere)
    return compiled, NamedSharding(mesh, PartitionSpec("all"))


def _key(*parts: object) -> str:
    return "/".join(("retinanet_jax", *map(str, parts)))


def _store() -> Any:
    # JAX has no public name for it; Orbax takes it from here too.
    from jax._src.distributed import global_state

    return global_state.client
