"""A process keeps programs only while no code has run that their key does not show."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from retinanet_jax.config.experiment_files import LOADED, experiment_paths, load_experiment
from retinanet_jax.runtime.known_code import only_sets_fields

PLAIN = """
from retinanet_jax.config.settings import default_config

def get_config(variant="1"):
    config = default_config()
    config.loss.gamma = float(variant)
    return config
"""
NOT_PLAIN = [
    "import os",
    "from os import environ",
    "from retinanet_jax.core.focal import CLASS_LOSSES",
    "from retinanet_jax.config import settings",
    "from . import other",
    "from retinanet_jax.config.settings import *",
    "focal = __import__('retinanet_jax.core.focal')",
    "default_config.__globals__['os']",
    "getattr(default_config, '__glo' + 'bals__')",
    "exec('import os')",
    "def get_config(:",
]


def test_all_experiments_of_the_package_only_set_fields():
    assert all(map(only_sets_fields, experiment_paths().values()))


@pytest.mark.parametrize("line", NOT_PLAIN)
def test_an_experiment_that_leads_to_other_code_does_not_only_set_fields(tmp_path, line):
    path = tmp_path / "mine.py"
    path.write_text(PLAIN)
    assert only_sets_fields(path)
    path.write_text(f"{PLAIN}\n{line}\n")
    assert not only_sets_fields(path) and not only_sets_fields(tmp_path / "missing.py")


def test_all_loaded_experiments_count_also_those_that_others_load():
    load_experiment("paper/table1b")
    names = {path: name for name, path in experiment_paths().items()}
    assert {names.get(path) for path in LOADED} >= {"paper/table1b"}


# Without the test session, which runs code of its own and checks the types of arguments.
PROGRAM = """
import functools, json, os, sys, sysconfig, types
from pathlib import Path
from retinanet_jax import main
from retinanet_jax.core import boxes, focal
from retinanet_jax.runtime.known_code import runs_known_code

plain, reads = map(Path, sys.argv[1:])
this = sys.modules["__main__"]
found = {"a script": runs_known_code(())}
del this.__file__
found["a notebook"] = runs_known_code(())
this.__file__ = os.path.join(sysconfig.get_path("scripts"), "mine")
found["an installed script"] = runs_known_code(())
this.__file__ = os.path.join(sysconfig.get_path("scripts"), "retinanet-jax")
found["known: retinanet-jax"] = runs_known_code(())
this.__file__ = main.__file__
found["known: python -m retinanet_jax.main"] = runs_known_code(())

mine = sys.modules["mine"] = types.ModuleType("mine")
for path, name in ((plain, "known: plain"), (reads, "other")):
    mine.__file__ = str(path)
    found[f"{name} experiment"] = runs_known_code([path])
    found[f"module {path.name}"] = runs_known_code(())
del sys.modules["mine"]
os.environ["RETINANET_JAX_IMPORT"] = "mine"
found["RETINANET_JAX_IMPORT"] = runs_known_code(())
del os.environ["RETINANET_JAX_IMPORT"]

for file in ("mine.py", "<string>", "/v/site-packages/my_losses/__init__.py"):
    space = {}
    exec(compile("def loss(x): return x", file, "exec"), space)
    loss = space["loss"]
    for kind in (loss, functools.partial(loss, 1)):
        focal.CLASS_LOSSES["mine"] = focal.ClassLoss(kind)
        found[f"{kind.__class__.__name__} in a table, {file}"] = runs_known_code(())
        del focal.CLASS_LOSSES["mine"]
    before, boxes.iou = boxes.iou, loss
    found[f"replaced function, {file}"] = runs_known_code(())
    boxes.iou = before
found["known: nothing is left"] = runs_known_code(())
print(json.dumps(found))
"""


def test_only_commands_plain_experiments_and_installed_packages_are_known(tmp_path):
    plain, reads, program = (tmp_path / f"{name}.py" for name in ("plain", "reads", "program"))
    plain.write_text(PLAIN)
    reads.write_text(f"import os\n{PLAIN}")
    program.write_text(PROGRAM)
    command = [sys.executable, program, plain, reads]
    where = {"PYTHONPATH": str(Path.cwd())}
    ended = subprocess.run(command, check=True, env=os.environ | where, capture_output=True)
    found = json.loads(ended.stdout)
    assert {name for name, known in found.items() if known != name.startswith("known")} == set()
    assert len(found) == 20


FIRST_LOSS = """
from retinanet_jax.config.settings import default_config
{head}

def get_config(variant="1"):
{body}
    config = default_config()
    config.data.name = "shapes"
    config.data.shapes.image_size = (64, 64)
    config.data.shapes.num_train = config.data.shapes.num_eval = 8
    config.pipeline.min_side = config.pipeline.max_side = 64
    config.model.backbone, config.model.backbone_levels = "resnet18", (3,)
    config.model.max_level, config.model.head_depth = 3, 1
    config.model.fpn_channels = config.model.head_channels = 32
    config.train.steps = config.train.log_every = 1
    config.train.batch_size = config.evaluation.batch_size = 8
    config.train.loggers, config.evaluation.example_images = (), 0
    {end}
    return config
"""
LOSSES = """
import jax.numpy as jnp
from retinanet_jax.core.focal import CLASS_LOSSES, ClassLoss, focal_loss

def add(factor):
    def loss(logits, targets, focal):
        return factor * focal_loss(logits, targets, gamma=2.0)

    CLASS_LOSSES["mine"] = ClassLoss(loss)
"""
USES_MINE = 'config.loss.classification = "mine"'


def first_loss(folder: Path, experiment: str, cache: str) -> float:
    """Class loss of the first step of a new process."""
    run = folder / f"run{len(list(folder.iterdir()))}"
    arguments = (f"--config={experiment}", f"--workdir={run}", f"--config.data.cache_dir={cache}")
    where = {"PYTHONPATH": f"{Path.cwd()}:{folder / 'site-packages'}", "JAX_PLATFORMS": "cpu"}
    where["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    users = {name: text for name, text in os.environ.items() if not name.startswith(("JAX", "XLA"))}
    command = [sys.executable, "-m", "retinanet_jax.main", *arguments]
    subprocess.run(command, check=True, env=users | where, capture_output=True)
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return next(line["class_loss"] for line in lines if line["kind"] == "train")


@pytest.mark.extended
def test_a_second_start_with_another_loss_of_the_same_name_uses_it(tmp_path):
    cache, module = tmp_path / "cache", tmp_path / "site-packages" / "my_losses.py"
    module.parent.mkdir()
    plain, variants, installed = (tmp_path / f"{name}.py" for name in ("plain", "variants", "ours"))
    plain.write_text(FIRST_LOSS.format(head="", body="", end=""))
    add = "    add(float(variant))"
    variants.write_text(FIRST_LOSS.format(head=LOSSES, body=add, end=USES_MINE))
    head = "import my_losses"
    installed.write_text(FIRST_LOSS.format(head=head, body="", end=USES_MINE))

    first_loss(tmp_path, str(plain), cache)
    kept = set(cache.rglob("*.stablehlo"))
    assert kept
    losses = [first_loss(tmp_path, f"{variants}:{factor}", cache) for factor in (1, 100)]
    for factor in (1, 100):
        module.write_text(f"{LOSSES}\nadd({factor})\n")
        losses.append(first_loss(tmp_path, str(installed), cache))
    assert losses == pytest.approx([losses[0], 100 * losses[0]] * 2)
    first_loss(tmp_path, str(plain), cache)
    assert set(cache.rglob("*.stablehlo")) == kept
