"""The streaming reader against `json.loads`: the same content, the same refusals, less memory."""

import io
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet_jax.data.annotations import json_stream

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(), v, max_size=4)
)
LAYOUTS = st.sampled_from([{}, {"indent": 2}, {"separators": (",", ":")}, {"ensure_ascii": False}])


def load(data: bytes, chunk: int = 1 << 20):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", chunk)
        return json_stream.load(io.BytesIO(data), lambda name, entry: entry)


@settings(max_examples=200, deadline=None)
@given(value=VALUES, layout=LAYOUTS, chunk=st.integers(4, 40))
def test_any_content_is_what_json_reads(value, layout, chunk):
    for content in (value, {"a": [value], "b": value, "c": []}):
        data = json.dumps(content, **layout).encode("utf-8", "surrogatepass")
        assert load(data, chunk) == json.loads(data)


@settings(max_examples=300, deadline=None)
@given(
    at=st.integers(0, 60), cut=st.integers(0, 4), put=st.binary(max_size=2), chunk=st.integers(4, 9)
)
def test_any_damage_is_refused_where_json_refuses(at, cut, put, chunk):
    data = b'{"images": [1.5e+3, -7, {"id": [true]}], "b": {"x": "\\u00e9"}, "c": [ ]} '
    data = data[:at] + put + data[at + cut :]
    try:
        expected = json.loads(data)
    except ValueError:
        with pytest.raises(ValueError):
            load(data, chunk)
    else:
        assert load(data, chunk) == expected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_encodings(encoding):
    text = '{"images": [{"file_name": "Zürich 😀.jpg"}]}'
    assert load(text.encode(encoding), chunk=8) == json.loads(text)


def test_an_error_says_where():
    text = '{"images": [' + '{"id": 1}, ' * 50 + "{]}"
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads(text)
    with pytest.raises(ValueError, match=rf"double quotes: char {caught.value.pos}$"):
        load(text.encode(), chunk=16)


def test_entries_are_cut_down_one_by_one():
    polygon = [i + 0.25 for i in range(100)]
    entries = [{"id": i, "segmentation": [polygon]} for i in range(10_000)]
    data = json.dumps({"annotations": entries}).encode()
    tracemalloc.start()
    content = json_stream.load(
        io.BytesIO(data), lambda name, entry: entry["id"] if name == "annotations" else entry
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert content == {"annotations": list(range(10_000))}
    assert peak < len(data)  # the text alone is as much
