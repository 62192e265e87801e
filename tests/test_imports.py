"""The data flows one way: a folder imports only from folders above it in this list."""

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "retinanet_jax"
# Within a folder, no two modules import each other.
ORDER = [
    "core",
    "runtime",
    "data",
    "metrics",
    "config",
    "weights",
    "inference",
    "training",
    "export",
    "reports",
    "sweep",
    "serving",
    "main",
    "cli",
    "__main__",
]


def module_name(path: Path) -> str:
    parts = ["retinanet_jax", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in PACKAGE.rglob("*.py")}


def imported(path: Path) -> set[str]:
    """Full names of the package's modules that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("retinanet_jax"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                names.add(whole if whole in MODULES else node.module)
        elif isinstance(node, ast.Import):
            names |= {a.name for a in node.names if a.name.startswith("retinanet_jax")}
    return names


def test_every_folder_has_a_place_and_imports_only_from_those_above_it():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        folder = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if folder == "__init__":
            continue
        assert folder in ORDER, f"give {folder} a place in the order of tests/test_imports.py"
        for name in imported(path):
            other = name.split(".")[1] if "." in name else folder
            if other in ORDER and ORDER.index(other) > ORDER.index(folder):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}, which is below it")
    assert not wrong, "\n".join(wrong)


def test_core_imports_nothing_else_of_the_package():
    names = {name for path in PACKAGE.glob("core/**/*.py") for name in imported(path)}
    assert names and all(name.startswith("retinanet_jax.core") for name in names)


def test_the_package_fits_on_one_screen():
    entries = [p for p in PACKAGE.iterdir() if p.name != "__pycache__"]
    assert len(entries) <= 16, sorted(p.name for p in entries)


def test_no_module_has_the_name_of_a_standard_one_or_of_another():
    # A command has the name of what it runs; datasets give their name to a reader and to a metric.
    allowed = {"coco", "voc", "__init__", "__main__"}
    stems = [p.stem for p in PACKAGE.rglob("*.py") if p.parent.name != "cli"]
    assert not set(stems) & sys.stdlib_module_names - allowed
    assert not {stem for stem in stems if stems.count(stem) > 1} - allowed


def test_no_modules_import_each_other_in_a_circle():
    files = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    graph = {name: imported(path) & set(files) - {name} for name, path in files.items()}
    done: set[str] = set()
    while len(done) < len(graph):
        free = {name for name in graph if name not in done and graph[name] <= done}
        assert free, f"a circle among {sorted(set(graph) - done)}"
        done |= free


def test_neither_tensorflow_nor_torch_is_imported():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] not in ("tensorflow", "torch"), f"{path}: {name}"
