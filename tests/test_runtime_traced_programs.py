"""Programs on disk: the same results without tracing, and never those of other code or settings."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retinanet_jax.runtime import traced_programs
from retinanet_jax.runtime.traced_programs import keep_traced_programs, stored


class Pair(NamedTuple):
    total: jax.Array
    parts: jax.Array


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where programs are kept, although tests are code that is not installed."""
    monkeypatch.setattr(traced_programs, "runs_known_code", lambda experiments: True)
    keep_traced_programs(tmp_path)
    yield tmp_path / "traced"
    keep_traced_programs(None)


class Start:
    """A process that calls one function; counts how often the function is traced."""

    def __init__(self, description: str = "halves of 2"):
        self.traced = 0
        self.function = stored(
            jax.jit(self._halves),
            self._halves,
            description,
            pack=tuple,
            unpack=lambda _, packed: Pair(*packed),
        )

    def _halves(self, inputs: dict) -> Pair:
        self.traced += 1
        return Pair(jnp.sin(inputs["x"]).sum(), inputs["x"] / 2)

    def __call__(self, x=(1.0, 2.0, 4.0)) -> Pair:
        return self.function({"x": jnp.asarray(x, jnp.float32)})


def test_a_second_start_traces_nothing_and_gets_the_same_bits(folder):
    first, second = Start(), Start()
    expected = jax.jit(first._halves)({"x": jnp.float32([1, 2, 4])})
    first.traced = 0
    for start in (first, first, second):
        found = start()
        assert isinstance(found, Pair)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert (first.traced, second.traced, len(list(folder.iterdir()))) == (1, 0, 1)


def test_each_kind_of_arguments_has_a_program_of_its_own(folder):
    for traced in (2, 0):
        start = Start()
        assert start().parts.shape == (3,) and start((1.0, 2.0)).parts.shape == (2,)
        assert start.traced == traced


def test_a_program_of_other_code_settings_or_versions_is_not_used(folder, monkeypatch, tmp_path):
    Start()()
    assert Start()() and Start("halves of 3")() and len(list(folder.iterdir())) == 2
    with monkeypatch.context() as other:
        other.setattr(traced_programs, "_hash_of_code", lambda: "edited")
        assert Start()() and len(list(folder.iterdir())) == 3
    with monkeypatch.context() as other:
        other.setattr(traced_programs.metadata, "version", lambda name: f"{name} 9")
        assert Start()() and len(list(folder.iterdir())) == 4
    jax.config.update("jax_default_matmul_precision", "highest")
    try:
        assert Start()() and len(list(folder.iterdir())) == 5
    finally:
        jax.config.update("jax_default_matmul_precision", None)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[:-20] + bytes([content[-20] ^ 1]) + content[-19:],
        lambda content: b"\x80\x04cos\nsystem\n.",  # a pickle
    ],
)
def test_a_damaged_or_foreign_file_is_replaced(folder, damage):
    found = Start()()
    (path,) = folder.iterdir()
    intact = path.read_bytes()
    path.write_bytes(damage(intact))
    again = Start()
    jax.tree.map(np.testing.assert_array_equal, again(), found)
    assert again.traced == 1 and len(path.read_bytes()) == len(intact)
    last = Start()
    assert last() and last.traced == 0


def test_what_cannot_be_stored_runs_all_the_same(folder):
    (folder.parent / "traced").write_text("a file in the way")
    start = Start()
    assert float(start().parts[2]) == 2 and start.traced == 1

    def function(x):
        return (jax.pure_callback(lambda x: np.float32(7), jax.ShapeDtypeStruct((), "float32"), x),)

    unpack = {"pack": tuple, "unpack": lambda _, packed: packed}
    assert stored(jax.jit(function), function, "callback", **unpack)(jnp.float32(1)) == (7,)


def test_an_error_in_the_function_is_raised(folder):
    def function(x):
        raise ValueError(f"needs a matrix, not {x.shape}")

    with pytest.raises(ValueError, match=r"needs a matrix, not \(3,\)"):
        stored(jax.jit(function), function, "raises", pack=None, unpack=None)(jnp.ones(3))


def test_the_least_recently_used_programs_are_removed(folder, monkeypatch):
    monkeypatch.setattr(traced_programs, "MAX_FILES", 2)
    for description in ("a", "b", "a", "c"):
        Start(description)()
    used = {name: Start(name) for name in ("a", "c")}
    assert all(start() and start.traced == 0 for start in used.values())


def test_code_of_the_user_that_runs_later_ends_it(folder, monkeypatch):
    Start()()
    start = Start()
    monkeypatch.setattr(traced_programs, "runs_known_code", lambda experiments: False)
    assert start() and start.traced == 1 and len(list(folder.iterdir())) == 1
