"""The data flows one way: a module imports only from modules above it in this list."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "retinanet_jax"
# A folder is one room with an order of its own, which the test below holds too.
ORDER = [
    "compilation",
    "mesh",
    "launch",
    "processes",
    "partial_file",
    "manifest",
    "workdir",
    "preemption",
    "watchdog",
    "download",
    "boxes",
    "anchors",
    "matching",
    "nms",
    "losses",
    "detections",
    "models",
    "data",
    "metrics",
    "visualize",
    "optimizer",
    "config",
    "experiment",
    "recipes",
    "paper",
    "weights",
    "best",
    "checkpoint",
    "logging",
    "predict",
    "results",
    "tta",
    "streaming",
    "detector",
    "export",
    "evaluate",
    "augment",
    "train",
    "programs",
    "learner",
    "shared",
    "loop",
    "divergence",
    "page",
    "inspection",
    "run",
    "replay",
    "analysis",
    "serving",
    "main",
    "sweep",
    "cli",
    "__main__",
]


def imported(path: Path) -> set[str]:
    """Full names of the package's modules that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("retinanet_jax"):
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {a.name for a in node.names if a.name.startswith("retinanet_jax")}
    return names


def module_name(path: Path) -> str:
    parts = ["retinanet_jax", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_every_module_has_a_place_and_imports_upwards_only():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        assert room in ORDER, f"give {path.name} a place in the order of tests/test_imports.py"
        for name in imported(path):
            other = name.split(".")[1] if "." in name else room
            if other in ORDER and ORDER.index(other) > ORDER.index(room):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}, which lies below it")
    assert not wrong, "\n".join(wrong)


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
