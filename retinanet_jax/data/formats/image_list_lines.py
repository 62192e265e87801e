"""Lines of an image list: the name of an image, and behind it the boxes of its objects."""

import re

from retinanet_jax.data.image_headers import IMAGE_SUFFIXES

_SUFFIX = rf"\.(?:{'|'.join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))})"
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)"
# A list all of whose boxes are broken in the same way is one, too.
_WITH_BOX = re.compile(rf"{_SUFFIX}[ \t]+{_NUMBER}(?:, ?{_NUMBER}){{2}}", re.IGNORECASE)
_NAME = re.compile(rf".*{_SUFFIX}(?=\s|$)", re.IGNORECASE)


def has_boxes(text: str) -> bool:
    """Whether a line names an image and has a box behind it."""
    return _WITH_BOX.search(text) is not None


def split_line(line: str) -> tuple[str, list[str]]:
    """The name of the image and the boxes of a line that is not blank, both as written.

    A name may contain spaces: it ends with the last suffix of an image. Without one it is a word.
    """
    line = line.strip()
    found = _NAME.match(line)
    name = found[0] if found else line.split(maxsplit=1)[0]
    return name, line[len(name) :].split()
