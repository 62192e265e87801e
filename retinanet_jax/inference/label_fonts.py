"""Finds fonts for labels in any script.

DejaVu Sans, which comes with matplotlib, has Latin, Cyrillic, Greek, Arabic, Hebrew and more. For
other scripts, such as Chinese or Thai, the fonts of the system are searched. A name with letters
that no font has is drawn as `class N`, with a warning.
"""

import functools
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import logging
from PIL import ImageFont

# Searched first, since they have the most scripts, by parts of their file names.
_PREFERRED = ("notosanscjk", "notosans", "wqy", "droidsansfallback", "unifont", "arialuni")
_FOLDERS = {
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": (os.path.join(os.environ.get("WINDIR", "C:/Windows"), "Fonts"),),
}
_LINUX_FOLDERS = (
    *("/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts"),
    *(f"{folder}/fonts" for folder in os.environ.get("XDG_DATA_DIRS", "").split(":") if folder),
)
_NOT_A_CHARACTER = "\U0010ffff"  # no font has it


@functools.lru_cache
def label_font(size: int, path: str | None = None) -> ImageFont.FreeTypeFont:
    """Returns a font of a height in pixels; by default DejaVu Sans, or Pillow's own font."""
    path = path or _dejavu()
    return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


@functools.lru_cache(maxsize=4096)
def text_runs(text: str, size: int) -> tuple[tuple[str, ImageFont.FreeTypeFont], ...]:
    """Splits a text into pieces, each with a font that has its letters."""
    runs: list[tuple[str, str | None]] = []
    for character in text:
        path = _font_for(character)
        if runs and (runs[-1][1] == path or character.isspace()):
            runs[-1] = runs[-1][0] + character, runs[-1][1]
        else:
            runs.append((character, path))
    return tuple((piece, label_font(size, path)) for piece, path in runs)


@functools.lru_cache(maxsize=4096)
def drawable_name(name: str, label: int) -> str:
    """Returns the class name, or `class N` if no font has its letters, which is logged once."""
    if not (missing := missing_letters([name])):
        return name
    logging.warning("%s", missing_letters_note(missing, f"{name} is drawn as class {label}"))
    return f"class {label}"


def missing_letters(names: Sequence[str]) -> str:
    """Returns the letters of the names that no font on this machine has."""
    letters = sorted({letter for name in names for letter in name if not letter.isspace()})
    return "".join(letter for letter in letters if not _is_drawable(letter))


def missing_letters_note(missing: str, consequence: str) -> str:
    """Explains in a line what to do about missing letters."""
    return (
        f"labels: no font on this machine has {missing[:20]}, so {consequence}; install a font "
        "that has them, such as Noto Sans CJK"
    )


def _is_drawable(character: str) -> bool:
    return _has_glyph(None, character) or _font_for(character) is not None


@functools.lru_cache(maxsize=4096)
def _font_for(character: str) -> str | None:
    """The file of a system font with the character; None: the default, if that has it or none."""
    if character.isspace() or _has_glyph(None, character):
        return None
    return next((path for path in _system_fonts() if _has_glyph(path, character)), None)


def _has_glyph(path: str | None, character: str) -> bool:
    """Whether a font draws a character otherwise than a character that it lacks."""
    try:
        font = label_font(24, path)
        drawn, lacking = (font.getmask(c) for c in (character, _NOT_A_CHARACTER))
    except (OSError, ValueError):  # a font that FreeType does not read
        return False
    return (drawn.size, bytes(drawn)) != (lacking.size, bytes(lacking))


def _dejavu() -> str | None:
    spec = importlib.util.find_spec("matplotlib")  # found without importing it
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
    return str(path) if path.is_file() else None


@functools.cache
def _system_fonts() -> list[str]:
    """The font files of the system, the preferred ones first."""
    folders = _FOLDERS.get(sys.platform, _LINUX_FOLDERS)
    files = [
        path
        for folder in dict.fromkeys(folders)
        for path in Path(folder).expanduser().rglob("*.[to]t[fc]")
    ]

    def rank(path: Path) -> tuple[int, bool, str]:
        name = path.name.lower().replace("-", "").replace("_", "")
        preferred = [place for place, part in enumerate(_PREFERRED) if part in name]
        return min(preferred, default=len(_PREFERRED)), "regular" not in name, str(path)

    return [str(path) for path in sorted(files, key=rank)]
