"""Output files of `inspect` and `analyze`: checked before the work, written at its end."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path


def check_page_path(out: Path) -> None:
    """Checks that an HTML page can be written at --out; creates its folder.

    Raises:
        ConfigError: `out` does not end with .html, or cannot be written.
    """
    from retinanet_jax.config.settings import ConfigError

    # A page at results.json or config.json would replace a file of the run.
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--out: {out} does not end with .html; name an HTML file")
    if out.is_dir():
        raise ConfigError(
            f"--out: {out} is a folder; name a file in it, such as {out / 'page.html'}"
        )
    if file := next((parent for parent in out.parents if parent.is_file()), None):
        raise ConfigError(f"--out: {out} cannot be written: {file} is a file; name another folder")
    with _naming_out(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()


def write_files(out: Path, files: Mapping[Path, str]) -> None:
    """Writes text files that belong to the page at --out.

    Raises:
        ConfigError: a file cannot be written.
    """
    from retinanet_jax.runtime.workdir import write_whole

    with _naming_out(out):
        for path, text in files.items():
            write_whole(path, text)


@contextlib.contextmanager
def _naming_out(out: Path) -> Iterator[None]:
    from retinanet_jax.config.settings import ConfigError

    try:
        yield
    except OSError as error:
        message = f"--out: {out} cannot be written ({error.strerror}); name another file"
        raise ConfigError(message) from error
