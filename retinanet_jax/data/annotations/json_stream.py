"""Reads JSON with long lists entry by entry, without the whole text in memory.

COCO's instances_train2017.json is 470 MB, nine tenths of it polygons. `json.load` holds its text
and all polygons at once; here, each entry is reduced as soon as it is read.
"""

import codecs
import io
import json
from collections.abc import Callable
from typing import Any

_CHUNK = 1 << 20  # bytes
_LONGEST_TAIL = 3  # of a number that continues in the next chunk: 1|.5, 1|e5, 1.5|e+5
_decode_value = json.JSONDecoder().raw_decode


def load(file: io.BufferedIOBase, keep: Callable[[str, Any], Any]) -> Any:
    """Returns what `json.load` gives, with keep(name, entry) for each entry of the outermost lists.

    These lists are values of the outermost object, and `name` is their key in it.

    Raises:
      ValueError: it is not JSON.
      RecursionError: it is nested too deeply.
    """
    text = _Text(file)
    content = _object(text, keep) if text.peek() == "{" else text.value()
    if text.peek():
        raise text.error("Extra data")
    return content


def _object(text: "_Text", keep: Callable[[str, Any], Any]) -> dict:
    content: dict = {}
    text.expect("{")
    if text.peek() == "}":
        text.expect("}")
        return content
    separator = ","
    while separator == ",":
        if text.peek() != '"':
            raise text.error("Expecting property name enclosed in double quotes")
        name = text.value()
        text.expect(":")
        content[name] = _list(text, name, keep) if text.peek() == "[" else text.value()
        separator = text.expect(",}")
    return content


def _list(text: "_Text", name: str, keep: Callable[[str, Any], Any]) -> list:
    entries: list = []
    text.expect("[")
    if text.peek() == "]":
        text.expect("]")
        return entries
    separator = ","
    while separator == ",":
        entries.append(keep(name, text.value()))
        separator = text.expect(",]")
    return entries


class _Text:
    """The text of a file in chunks; `_buffer[_at:]` has been read but not used."""

    def __init__(self, file: io.BufferedIOBase):
        self._file = file
        self._buffer, self._at, self._dropped = "", 0, 0
        head = file.read(_CHUNK)
        encoding = codecs.getincrementaldecoder(json.detect_encoding(head))
        self._decoder = encoding("surrogatepass")  # as json.load does
        self._buffer = self._decoder.decode(head)

    def peek(self) -> str:
        """The next character that is not a space; empty at the end."""
        while True:
            while self._at < len(self._buffer):
                if self._buffer[self._at] not in " \t\n\r":
                    return self._buffer[self._at]
                self._at += 1
            if not self._read_on():
                return ""

    def expect(self, characters: str) -> str:
        """Takes the next character, which must be one of these."""
        found = self.peek()
        if not found or found not in characters:
            raise self.error(f"Expecting {' or '.join(map(repr, characters))}")
        self._at += 1
        return found

    def value(self) -> Any:
        """Takes the next value."""
        self.peek()
        more = True
        while True:
            try:
                value, end = _decode_value(self._buffer, self._at)
                if not more or end + _LONGEST_TAIL < len(self._buffer):
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                if not more:
                    self._at = error.pos
                    raise self.error(error.msg) from None
            more = self._read_on()

    def error(self, message: str) -> ValueError:
        """A ValueError with the position."""
        return ValueError(f"{message}: char {self._dropped + self._at}")

    def _read_on(self) -> bool:
        # At least as much as is left over, so that a long value is scanned again only a few times.
        data = self._file.read(max(_CHUNK, len(self._buffer) - self._at))
        text = self._decoder.decode(data, final=not data)
        self._dropped += self._at
        self._buffer, self._at = self._buffer[self._at :] + text, 0
        return bool(data)
