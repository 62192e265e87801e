"""Parses the records of `coco/2017` and `voc`: a tf.train.Example protocol buffer each.

TFDS's own decoding checks every feature in Python: three to four times the time of reading and
parsing together, during which no other thread runs Python.
"""

from typing import Any

from retinanet_jax.data.record_files import parse_example

_OBJECTS = "objects/"


def parse_record(data: bytes) -> dict[str, Any]:
    """Returns the fields of a record by name.

    `image` and `image/filename` are bytes, `image/id` is an integer.

    `objects` is a dict of lists, one number for each object, but four for each in `bbox`. Lists
    outside of it come as their first value: none of them is used.

    Raises:
      google.protobuf.message.DecodeError: it is not a tf.train.Example.
    """
    record: dict[str, Any] = {}
    objects: dict[str, list] = {}
    for name, values in parse_example(data).items():
        if name.startswith(_OBJECTS):
            objects[name.removeprefix(_OBJECTS)] = list(values)
        elif values:
            record[name] = values[0]
    return {**record, "objects": objects}
