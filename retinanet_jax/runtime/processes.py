"""A run of several processes: connecting, agreeing on settings, and ending together.

`jax.distributed` connects the processes. Its key-value store, in process 0, carries what they
exchange outside of the steps: settings to compare, and the error that ended one of them. Without
that the others would wait for it in the next step, on most devices forever.
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

from retinanet_jax.runtime.find_processes import Launch, ProcessesError

HEARTBEAT = 30  # seconds without a heartbeat after which jax.distributed declares a process dead
GRACE = 5  # seconds for the others to end by themselves after one has ended
DAY = 24 * 3600  # time limit while a process prepares data; processes that end are noticed earlier

RESUMES = "Start all processes again with the same command: it resumes from the last checkpoint"

ErrorText = Callable[[BaseException], tuple[str, int] | None]


@contextlib.contextmanager
def joined(launch: Launch, error_text: ErrorText) -> Iterator[None]:
    """Connects this process with the others of its run, if there are any; before JAX is used.

    An error that leaves the block ends all processes; the others report which one and why. Errors
    with `everywhere` = True, which all processes raise at the same step, pass unchanged.

    Args:
        launch: flags of the command line.
        error_text: message and exit code for an error; None for an unexpected one.

    Raises:
        ProcessesError: the processes do not connect; names the address.
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
            f"process {jax.process_index()} of {jax.process_count()} ended without an error "
            "message: it crashed, was killed, or JAX ended it because another process is lost "
            f"(named above, if known). {RESUMES}"
        )
        # While all are connected: on the CPU the first collective fails if one is 30 seconds late.
        multihost_utils.sync_global_devices("joined")
        largest(0).block_until_ready()
        with _Alarm(error_text, last_words):
            yield


def _connect(arguments: dict[str, Any], timeout: int, last_words: "LastWords") -> None:
    address = arguments.get("coordinator_address") or "the address given by the launcher"
    missing = (
        f"not all processes connected to {address} within {timeout} s (--coordinator_timeout): "
        "check that each was started, with the same --coordinator and --num_processes and with its "
        "own --process_id"
    )
    last_words.set(missing)
    # JAX's handler of SIGTERM would replace the one of preemption.py.
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
            hint = f"{address}: process 0 cannot open this port; use a free port of its host"
        raise ProcessesError(f"{hint} ({error})") from error


def _wait_for_coordinator(address: str, timeout: int) -> None:
    """Waits for process 0 to answer; JAX alone would abort with a C++ stack trace."""
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
        f"{address}: no answer from process 0 within {timeout} s ({reason}): check that it was "
        "started, and that this host can reach its host at this port"
    )


class LastWords:
    """A small process that prints a message if this one dies; a context manager.

    If another process of the run is lost, JAX aborts this one outside of Python.
    """

    _PRINT_LAST = (
        "import signal, sys\n"
        "for number in (signal.SIGTERM, signal.SIGINT): signal.signal(number, signal.SIG_IGN)\n"
        "line = ''\n"
        "for line in sys.stdin: pass\n"
        "print(line.strip(), file=sys.stderr, end='\\n' * bool(line.strip()))\n"
    )

    def __enter__(self) -> "LastWords":
        command = [sys.executable, "-I", "-S", "-c", self._PRINT_LAST]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.set("")
        self._process.communicate()

    def set(self, line: str) -> None:
        """Sets the line to print; '' for none."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()


class _Alarm:
    """Tells the other processes why this one ends; ends this one if another has ended."""

    def __init__(self, error_text: ErrorText, last_words: LastWords):
        self._error_text, self._last_words = error_text, last_words
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
        expected = self._error_text(error)
        short, code = expected or (f"{type(error).__name__}: {error}", 1)
        text = short if expected else "".join(traceback.format_exception(error))
        self._failed.set()
        if _is_of_devices(error):
            # Most likely another process is gone, and JAX will end this one with a better message.
            time.sleep(HEARTBEAT + 2 * GRACE)
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            ended = {"process": jax.process_index(), "error": short, "code": code}
            _store().key_value_set(_key("ended"), json.dumps(ended))
        self._ended.set()
        if jax.process_index() == 0:
            time.sleep(2 * GRACE)  # the others read the store, which ends with this process
        self._end(text, code)

    def _listen(self) -> None:
        while not self._ended.wait(1.0):
            try:
                ended = json.loads(_store().key_value_try_get(_key("ended")))
            except jax.errors.JaxRuntimeError:
                continue  # none has
            self._failed.wait(GRACE)
            if not self._ended.is_set():
                self._end(f"process {ended['process']} ended: {ended['error']}", ended["code"])

    def _end(self, text: str, code: int) -> NoReturn:
        print(text, file=sys.stderr)
        self._last_words.set("")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # a normal exit would wait for the others


def _is_of_devices(error: BaseException | None) -> bool:
    """Whether an error is from the devices, or was raised from one that is."""
    while error is not None and not isinstance(error, jax.errors.JaxRuntimeError):
        error = error.__cause__ or error.__context__
    return error is not None


def from_first(topic: str, value: Any) -> Any:
    """The value (for JSON) of process 0, on every process. Use each topic once."""
    if jax.process_count() == 1:
        return value
    if jax.process_index() == 0:
        _store().key_value_set(_key(topic), json.dumps(value))
    return json.loads(_store().blocking_key_value_get(_key(topic), DAY * 1000))


def to_first(topic: str, value: Any) -> list[Any]:
    """On process 0 the values (for JSON) of all processes; on the others their own."""
    if jax.process_index() > 0:
        _store().key_value_set(_key(topic, jax.process_index()), json.dumps(value))
        return [value]
    others = range(1, jax.process_count())
    texts = [_store().blocking_key_value_get(_key(topic, i), DAY * 1000) for i in others]
    return [value, *map(json.loads, texts)]


def check_same(topic: str, values: Mapping[str, Any]) -> None:
    """Waits for all processes, and checks that their values (for JSON) equal those of process 0.

    Raises:
        ProcessesError: names the values that differ.
    """
    # Waits for as long as it takes; a collective on the devices waits only some minutes.
    to_first(f"{topic} of all", jax.process_index())
    ours = json.loads(json.dumps(values))
    theirs = from_first(topic, ours)
    differences = [
        f"{name} is {ours[name]}, on process 0 {theirs.get(name)}"
        for name in ours
        if ours[name] != theirs.get(name)
    ]
    if differences:
        raise ProcessesError(
            f"process {jax.process_index()} ({socket.gethostname()}) differs from process 0: "
            f"{'; '.join(differences)}. Start all with the same command, the same data and the "
            "same --workdir, a folder that all hosts share"
        )


def largest(number: int) -> jax.Array:
    """The maximum of the processes' numbers, on each of them; asynchronous."""
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
    # JAX has no public name for it; Orbax uses it, too.
    from jax._src.distributed import global_state

    return global_state.client
