"""Lines of an image list: the name of an image, followed by the boxes of its objects."""

import contextlib
import re
from pathlib import Path

from retinanet_jax.data.annotations.folder_files import ascii_head, read_lines, suffix_of
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.image_headers import IMAGE_SUFFIXES

_SUFFIX = rf"\.(?:{'|'.join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))})"
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)"
# A list all of whose boxes are broken in the same way is one, too.
_WITH_BOX = re.compile(rf"{_SUFFIX}[ \t]+{_NUMBER}(?:, ?{_NUMBER}){{2}}", re.IGNORECASE)
_NAME = re.compile(rf".*{_SUFFIX}(?=\s|$)", re.IGNORECASE)
_HEAD = 1 << 16


def has_boxes(path: Path) -> bool:
    """Returns whether a line of a text file names an image and has a box behind it.

    Images without objects may come first, so if the first line is an image, the next lines are
    read.
    """
    head = ascii_head(path, _HEAD).decode("utf-8", "ignore").lstrip("\ufeff")
    if _WITH_BOX.search(head):
        return True
    first = head.lstrip().partition("\n")[0].strip()
    if suffix_of(first) not in IMAGE_SUFFIXES:
        return False
    with contextlib.suppress(DataError):  # it is not text
        return any(_WITH_BOX.search(line) for _, line in read_lines(path))
    return False


def split_line(line: str) -> tuple[str, list[str]]:
    """Returns the name of the image and the boxes of a line that is not blank, both as written.

    A name may contain spaces: it ends with the last image suffix. Without a suffix, it is one word.
    """
    line = line.strip()
    found = _NAME.match(line)
    name = found[0] if found else line.split(maxsplit=1)[0]
    return name, line[len(name) :].split()
