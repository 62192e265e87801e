"""Fills the table of docs/accelerators.md: plans of COCO's networks on chips that need not be here.

    python scripts/accelerators.py [--only=h200,train,800x1344]

runs `retinanet-jax plan` for each case below whose compiler is installed, one after the other, and
keeps the rows in docs/figures/accelerators.csv with the commit. --only selects cases that have all
of its words: chip, network, program, canvas. --table alone writes the table again.
"""

import argparse
import csv
import functools
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROWS, PAGE = ROOT / "docs/figures/accelerators.csv", ROOT / "docs/accelerators.md"
BEGIN, END = "<!-- begin: scripts/accelerators.py -->\n", "<!-- end -->\n"
IMAGES = {"v5e:2x2": 8, "v6e:2x2": 8, "h200:8": 16}  # on a chip
NETWORKS = {"resnet50": "coco:flips", "resnet101": "coco:r101"}
CANVASES = ("800x1344", "1344x1344", "1024x1024", "512x864", "512x512")
KEY = ("chip", "network", "program", "canvas")
COLUMNS = (
    *KEY,
    *("images", "memory_gib", "temporary_gib", "largest", "collectives", "kernels", "cycles"),
    *("bound_ms", "bottleneck", "compile_s", "versions", "commit"),
)
CASES = list(itertools.product(IMAGES, NETWORKS, ("train", "predict"), CANVASES))
HEADER = (
    *("chip", "network", "program", "canvas", "images a chip", "memory, GiB", "largest, by a line"),
    *("collectives", "kernels", "bound, ms", "first bottleneck", "commit"),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="words of the cases, with commas between")
    parser.add_argument("--skip_largest", action="store_true", help="compile once for each case")
    parser.add_argument("--table", action="store_true", help="plan nothing")
    arguments = parser.parse_args()
    words = set(filter(None, arguments.only.split(",")))
    for case in [] if arguments.table else CASES:
        if words <= {*case, case[0].partition(":")[0]}:
            record = plan(case, arguments.skip_largest)
            write_rows(read_rows() | {case: record} if record else read_rows())
    write_table(read_rows())


def plan(case: tuple[str, ...], skip_largest: bool) -> dict[str, str] | None:
    """The row of a case; None, with a message, where it cannot be planned here."""
    chip, network, program, canvas = case
    before = commit()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "plan.json"
        command = [
            *(sys.executable, "-m", "retinanet_jax", "plan", f"--config={NETWORKS[network]}"),
            *(f"--chip={chip}", f"--mode={program}", f"--canvas={canvas}", f"--json={out}"),
            *(f"--images={IMAGES[chip]}", *["--skip_largest"] * skip_largest),
        ]
        if subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL).returncode:
            print(f"left out: {' '.join(case)}", file=sys.stderr)
            return None
        found = json.loads(out.read_text(encoding="utf-8"))
    (row,) = found["rows"]
    about = {"versions": found["versions"], "commit": before}
    known = {name: row[name] for name in COLUMNS if name in row}
    return known | dict(zip(KEY, case, strict=True)) | about


def commit() -> str:
    """The last commit of the package, with '+' where files of it have been changed since."""
    git = functools.partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, check=True)
    last = git(["git", "log", "-1", "--format=%h", "--abbrev=7", "--", "retinanet_jax"]).stdout
    changed = git(["git", "status", "--porcelain", "--", "retinanet_jax"]).stdout
    return last.strip() + "+" * bool(changed)


def read_rows() -> dict[tuple[str, ...], dict[str, str]]:
    if not ROWS.exists():
        return {}
    with ROWS.open(encoding="utf-8", newline="") as file:
        return {tuple(row[name] for name in KEY): row for row in csv.DictReader(file)}


def write_rows(rows: dict[tuple[str, ...], dict[str, str]]) -> None:
    with ROWS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[case] for case in CASES if case in rows)


def write_table(rows: dict[tuple[str, ...], dict[str, str]]) -> None:
    """Writes the table between the marks of the page."""
    lines = [HEADER, ("---",) * len(HEADER)]
    names = ("images", "memory_gib", "largest", "collectives", "kernels", "bound_ms")
    for group, cases in itertools.groupby(CASES, key=lambda case: case[:3]):
        missing = []
        for case in cases:
            if row := rows.get(case):
                cells = [row[name] for name in (*names, "bottleneck", "commit")]
                lines.append((*case, *(cell or "not planned" for cell in cells)))
            else:
                missing.append(case[3])
        if missing:
            blank = len(HEADER) - len(KEY) - 1
            lines.append((*group, ", ".join(missing), "not planned", *[""] * blank))
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    versions = sorted({row["versions"] for row in rows.values()})
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    text = f"{before}{BEGIN}{table}\nVersions: {'; '.join(versions)}.\n{END}{after}"
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
