"""YAML as plain text values; nesting and aliases that could exhaust the process are refused."""

import pytest

from retinanet_jax.data.annotations.yaml_text import load_yaml


def test_values_stay_text():
    content = load_yaml("a: [no, 01, 1.0, ~, 2020-01-01]\nb:\nc: {1: x}")
    assert content == {"a": ["no", "01", "1.0", "~", "2020-01-01"], "b": "", "c": {"1": "x"}}


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 30_000,  # overflows the stack of a parser in C
        "- " * 30_000 + "a",
        "{a: " * 30_000,
        "a: &x [1]\nb: *x",
        "a: [",
        "a: b: c",
        "\0",
    ],
)
def test_what_cannot_be_read_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        load_yaml(text)


def test_tags_make_no_objects():
    assert load_yaml("a: !!python/object/apply:os.getcwd []") == {"a": []}
