"""Runs the code cells of a notebook in one namespace and shows what a notebook would, as text.

python tests/run_notebook.py notebooks/quickstart.ipynb
"""

import ast
import json
import sys
from pathlib import Path


def run_cell(source: str, name: str, names: dict) -> None:
    """Executes a cell; the value of an expression at its end is shown."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), names)
    if last:
        value = eval(compile(ast.Expression(last.value), name, "eval"), names)
        print(value._repr_svg_() if hasattr(value, "_repr_svg_") else repr(value))


if __name__ == "__main__":
    cells = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["cells"]
    names: dict = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            run_cell("".join(cell["source"]), f"{sys.argv[1]}, cell {number}", names)
