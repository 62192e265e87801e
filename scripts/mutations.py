"""Tests of the tests: puts one mistake at a time into a copy of the code and runs tests on it.

    python scripts/mutations.py [NAME ...] [--open] [--check] [--limit_s=600]

scripts/mutations.toml lists the mistakes: a name, the file, the old and the new text, and the tests
that have to fail. scripts/mutations.csv has the result of each; it is written after every mistake.
Words after the command choose mistakes whose name or file contains one of them; with --open those
that have no result yet or were not noticed. A test that fails without a mistake cannot notice one:
run the whole suite before, or use --check, which first runs each selection of tests unchanged.
"""

import argparse
import csv
import dataclasses
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_suffix(".toml")
RESULTS = Path(__file__).with_suffix(".csv")


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


def run_tests(code: Path, tests: str, limit_s: float) -> tuple[str, float]:
    """The first test that fails, '' if all pass, and the seconds.

    Raises:
      ValueError: there are no such tests.
    """
    shared = os.environ.get("RETINANET_SHARED", str(ROOT.parent / "shared"))
    environment = os.environ | {
        "PYTHONPATH": str(code),
        "PYTHONDONTWRITEBYTECODE": "1",
        "RETINANET_SHARED": shared,
        "RETINANET_GOLDEN": os.environ.get("RETINANET_GOLDEN", f"{shared}/golden"),
    }
    options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, *shlex.split(tests)]
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=code, env=environment, stdout=subprocess.PIPE, text=True, process_group=0
    )
    try:
        output = process.communicate(timeout=limit_s)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return "time limit", time.perf_counter() - start
    seconds = time.perf_counter() - start
    if process.returncode == 0:
        return "", seconds
    if process.returncode == 5:
        raise ValueError(f"{LIST.name}: no tests are chosen by {tests}")
    failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return (failed[0].split(" - ")[0].split()[1] if failed else output[-200:]), seconds


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
            noticed = "yes" if by else "no"
            result = Result(mutation.file, mutation.name, noticed, by, round(seconds))
            print(
                f"{noticed:>3} {seconds:4.0f} s  {mutation.file}: {mutation.name}  {by}", flush=True
            )
            write_results(read_results() | {mutation.name: result}, mutations)
    results = read_results()
    missed = [name for name, result in results.items() if result.noticed == "no"]
    print(f"{len(results)} mistakes, {len(results) - len(missed)} noticed; not noticed: {missed}")


if __name__ == "__main__":
    main()
