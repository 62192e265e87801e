"""Runs the code cells of a notebook in one namespace and prints the values that it shows.

python tests/run_notebook.py notebooks/quickstart.ipynb
"""

import ast
import json
import re
import sys
from pathlib import Path


def run_cell(source: str, name: str, names: dict) -> None:
    """Executes a cell without its magics (%pip) and prints the value of its last expression."""
    source = re.sub(r"(?m)^( *)[%!].*$", r"\1pass", source)
    tree = ast.parse(source)
    shown = isinstance(tree.body[-1], ast.Expr) and not source.rstrip().endswith(";")
    last = tree.body.pop() if shown else None
    exec(compile(tree, name, "exec"), names)
    if last:
        print(repr(eval(compile(ast.Expression(last.value), name, "eval"), names)))


if __name__ == "__main__":
    cells = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["cells"]
    names: dict = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            run_cell("".join(cell["source"]), f"{sys.argv[1]}, cell {number}", names)
    for number in names["plt"].get_fignums() if "plt" in names else ():
        axes = names["plt"].figure(number).axes[0]
        print(f"figure with {len(axes.lines)} lines, {axes.get_xlabel()}, {axes.get_ylabel()}")
