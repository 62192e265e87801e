"""Tests of the tests: puts one mistake at a time into a copy of the code and runs tests on it.

    python scripts/mutations.py [NAME ...] [--open] [--check] [--limit_s=600]

scripts/mutations.toml lists the mistakes: a name, the file, the old and the new text, and the tests
that have to fail. scripts/mutations.csv has the result of each; it is written after every mistake.
Words after the command choose mistakes whose name or file contains one of them; with --open those
that have no result yet or were not noticed. A test that fails without a mistake cannot notice one:
run the whole suite before, or use --check, which first runs each selection of tests unchanged.
"""

import argparse
import contextlib
import csv
import dataclasses
import importlib
import multiprocessing
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_suffix(".toml")
RESULTS = Path(__file__).with_suffix(".csv")
TIME_LIMIT = "time limit"
LIBRARIES = (
    *("jax", "flax.linen", "optax", "orbax.checkpoint", "cv2", "PIL.Image", "pytest", "hypothesis"),
    *("jaxtyping", "beartype", "ml_collections", "absl.app", "rich.progress", "tensorboardX"),
)


@dataclasses.dataclass(frozen=True)
class Mutation:
    """One mistake.

    Attributes:
        name: what is wrong with it, in a few words.
        file: from the root of the repository.
        old: text that occurs once in the file.
        new: replaces it.
        tests: arguments of pytest.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str


@dataclasses.dataclass(frozen=True)
class Result:
    """A row of mutations.csv.

    Attributes:
        noticed: 'yes' or 'no'.
        by: the first test that failed, or 'time limit'.
        seconds: of the tests.
    """

    file: str
    name: str
    noticed: str
    by: str
    seconds: int


def read_mutations(path: Path = LIST) -> list[Mutation]:
    """The list, checked.

    Raises:
      ValueError: two mistakes of one name, or an old text that does not occur exactly once.
    """
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["mutation"]
    mutations = [Mutation(**entry) for entry in entries]
    names = [mutation.name for mutation in mutations]
    for mutation in mutations:
        if names.count(mutation.name) > 1:
            raise ValueError(f"{path.name}: {mutation.name!r} occurs twice; rename one")
        count = (ROOT / mutation.file).read_text(encoding="utf-8").count(mutation.old)
        if count != 1:
            raise ValueError(
                f"{path.name}: {mutation.name!r}: its old text occurs {count} times in "
                f"{mutation.file}; write text that occurs once"
            )
    return mutations


def read_results() -> dict[str, Result]:
    """The rows of mutations.csv by name."""
    if not RESULTS.exists():
        return {}
    with RESULTS.open(encoding="utf-8", newline="") as file:
        rows = [Result(**row | {"seconds": int(row["seconds"])}) for row in csv.DictReader(file)]
    return {row.name: row for row in rows}


def write_results(results: dict[str, Result], mutations: list[Mutation]) -> None:
    """Writes the rows in the order of the list."""
    fields = [field.name for field in dataclasses.fields(Result)]
    with RESULTS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        writer.writeheader()
        rows = (results[mutation.name] for mutation in mutations if mutation.name in results)
        writer.writerows(dataclasses.asdict(row) for row in rows)


def copy_code(target: Path) -> None:
    """Copies the tracked and the new files of the repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def import_libraries() -> None:
    """Imports what all tests use, so that the processes of the tests need not."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def run_tests(code: Path, tests: str, limit_s: float) -> tuple[str, float]:
    """The first test that fails, '' if all pass, and the seconds.

    Raises:
      ValueError: there are no such tests.
    """
    output = code.parent / "output.txt"
    arguments = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-m", "not slow"]
    arguments += shlex.split(tests)
    process = multiprocessing.get_context("fork").Process(
        target=run_pytest, args=(code, arguments, output)
    )
    start = time.perf_counter()
    process.start()
    process.join(limit_s)
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)  # with the processes that tests have started
        process.join()
        return TIME_LIMIT, time.perf_counter() - start
    seconds = time.perf_counter() - start
    if process.exitcode == 0:
        return "", seconds
    if process.exitcode in (4, 5):  # a file that does not exist, or nothing that -k chooses
        raise ValueError(f"{LIST.name}: no tests are chosen by {tests}")
    lines = output.read_text(encoding="utf-8", errors="replace").splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return (failed[0].split(" - ")[0].split()[1] if failed else lines[-1]), seconds


def run_pytest(code: Path, arguments: list[str], output: Path) -> None:
    """Runs pytest on a copy of the code; in a forked process, whose output goes to a file."""
    os.setpgid(0, 0)
    with output.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    shared = os.environ.setdefault("RETINANET_SHARED", str(ROOT.parent / "shared"))
    os.environ.setdefault("RETINANET_GOLDEN", f"{shared}/golden")
    os.environ["PYTHONPATH"] = str(code)
    os.chdir(code)
    sys.path.insert(0, str(code))
    import pytest

    os._exit(pytest.main(arguments))


def table(results: Iterable[Result]) -> str:
    """Mistakes and noticed ones by folder, as Markdown; and those that were not noticed."""
    folders: dict[str, list[Result]] = {}
    for result in results:
        folders.setdefault(result.file.split("/")[1], []).append(result)
    folders["all"] = [result for folder in folders.values() for result in folder]
    lines = ["| folder | mistakes | noticed |", "|---|---|---|"]
    for name, rows in folders.items():
        lines.append(f"| {name} | {len(rows)} | {sum(row.noticed == 'yes' for row in rows)} |")
    missed = [f"not noticed: {row.name}" for row in folders["all"] if row.noticed == "no"]
    return "\n".join([*lines, *missed])


def chosen(mutations: list[Mutation], options: argparse.Namespace) -> list[Mutation]:
    """The mistakes that the command line names."""
    results = read_results()
    return [
        mutation
        for mutation in mutations
        if (not options.names or any(n in mutation.name + mutation.file for n in options.names))
        and not (
            options.open and mutation.name in results and results[mutation.name].noticed == "yes"
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="parts of names or files")
    parser.add_argument("--open", action="store_true", help="only those not noticed so far")
    parser.add_argument("--check", action="store_true", help="run the tests unchanged before")
    parser.add_argument("--limit_s", type=float, default=600.0, help="of the tests of a mistake")
    options = parser.parse_args()
    mutations = read_mutations()
    import_libraries()
    with tempfile.TemporaryDirectory(prefix="mutations_") as folder:
        code = Path(folder) / "code"
        copy_code(code)
        for mutation in chosen(mutations, options):
            if options.check and (failed := run_tests(code, mutation.tests, options.limit_s)[0]):
                print(f"fails without a mistake: {failed} of {mutation.tests}")
                continue
            path = code / mutation.file
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
            by, seconds = run_tests(code, mutation.tests, options.limit_s)
            path.write_text(text, encoding="utf-8")
            noticed = "no" if by in ("", TIME_LIMIT) else "yes"
            result = Result(mutation.file, mutation.name, noticed, by, round(seconds))
            print(
                f"{noticed:>3} {seconds:4.0f} s  {mutation.file}: {mutation.name}  {by}", flush=True
            )
            write_results(read_results() | {mutation.name: result}, mutations)
    print(table(read_results().values()))


if __name__ == "__main__":
    main()
