"""Show versions, devices, memory, caches, and what each extra lacks.

    retinanet-jax doctor

Add the output when you report a problem. The exit code is 1 if a required package is missing, or if
JAX does not start.
"""

import argparse
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path

PACKAGE = "retinanet_jax"
SHOWN = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are no arguments."""


def run(arguments: argparse.Namespace) -> None:
    """Prints the report."""
    print(f"python: {platform.python_version()}, {platform.platform()}")
    print("packages: " + ", ".join(f"{name} {_version(name) or 'missing'}" for name in SHOWN))
    needed, extras = _requirements()
    missing = [name for name in needed if not _version(name)]
    if missing:
        print(f"missing: {', '.join(missing)}; pip install {PACKAGE}")
    works = not missing and _show_machine()
    for extra, names in sorted(extras.items()):
        lacking = [name for name in names if not _version(name)]
        fix = f"missing {', '.join(lacking)}; pip install '{PACKAGE}[{extra}]'"
        print(f"extra {extra}: {fix if lacking else 'installed'}")
    if not works:
        sys.exit(1)


def _version(name: str) -> str:
    """The version of an installed package; '' if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _requirements() -> tuple[list[str], dict[str, list[str]]]:
    """Names of the required packages, and of those of each extra."""
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:  # a clone that is not installed
        lines = []
    needed, extras = [], {}
    for requirement in map(Requirement, lines):
        extra = _extra(requirement)
        (extras.setdefault(extra, []) if extra else needed).append(requirement.name)
        for name in requirement.extras:  # of jax: cuda13, tpu
            plugin = {"cuda13": "jax-cuda13-plugin", "tpu": "libtpu"}.get(name)
            extras[extra].extend([plugin] if plugin else [])
    return needed, extras


def _extra(requirement) -> str:
    """The extra that a requirement belongs to; '' if it is always required."""
    marker = str(requirement.marker or "")
    return marker.partition("extra == ")[2].strip("\"'")


def _show_machine() -> bool:
    """Prints devices, cores, memory and caches; False if JAX does not start."""
    import jax

    from retinanet_jax.runtime.cores import available_cores
    from retinanet_jax.runtime.user_folders import cache_folder
    from retinanet_jax.weights.locations import default_cache_dir

    try:
        devices = jax.devices()
    except RuntimeError as error:
        print(f"devices: JAX does not start: {str(error).splitlines()[0]}")
        return False
    for device in devices:
        limit = (device.memory_stats() or {}).get("bytes_limit")
        memory = f", {limit / 2**30:.1f} GiB" if limit else ""
        print(f"device {device.id}: {device.platform}, {device.device_kind}{memory}")
    print(f"cores: {available_cores()}, memory: {_memory()}")
    cache = cache_folder()
    compilations = Path(jax.config.jax_compilation_cache_dir or cache / "compilations")
    for name, folder in (
        ("datasets", cache),
        ("compilations", compilations),
        ("weights", default_cache_dir() / "weights"),
    ):
        print(f"cache of {name}: {folder}, {_size(folder)}")
    existing = next(path for path in (cache, *cache.parents) if path.exists())
    print(f"free on its disk: {shutil.disk_usage(existing).free / 2**30:.1f} GiB")
    return True


def _memory() -> str:
    """Free and total memory of the machine."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return "unknown"
    lines = dict(line.split(":", 1) for line in text.splitlines())
    total, free = (int(lines[name].split()[0]) / 2**20 for name in ("MemTotal", "MemAvailable"))
    return f"{free:.1f} of {total:.1f} GiB available"


def _size(folder: Path) -> str:
    if not folder.is_dir():
        return "empty"
    return f"{sum(f.stat().st_size for f in folder.rglob('*') if f.is_file()) / 1e6:.0f} MB"
