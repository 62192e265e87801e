"""Standard output for any text, whatever the encoding of the terminal."""

import sys


def print_any_text() -> None:
    """Makes print escape characters that the terminal's encoding lacks, instead of failing.

    With LC_ALL=C and UTF-8 mode off, a class name such as "vélo" would raise UnicodeEncodeError.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a test's or a notebook's stand-in may lack it
            stream.reconfigure(errors="backslashreplace")
