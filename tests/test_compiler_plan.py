"""scripts/compiler_plan.py: the TPU compiler's plans for matching and loss; they need libtpu."""

import importlib.util
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu, the compiler for TPUs, is not installed",
)


@pytest.fixture
def plans(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import compiler_plan

    return compiler_plan


def test_matching_on_a_tpu(plans):
    """At 800x1344 with 100 boxes. One matrix of overlaps is 77 MiB; written once and read twice it
    is 12 bytes a pair, and 4 more for results and anchors."""
    chip, mesh = plans.described_mesh("v5e:2x4")
    function, shapes, pairs = plans.matching(2 * mesh.size, mesh)
    found, moved = plans.plan(function, shapes, chip, mesh)
    assert found.temporary <= 80 * 2**20
    assert moved <= 18 * pairs
    assert not found.collectives


def test_loss_on_a_tpu(plans, monkeypatch):
    """Value and gradient read and write 4 bytes for a logit and one for its state, and padding: 15
    at this size. A copy of the logits adds 8."""
    monkeypatch.setattr(plans, "CANVAS", (200, 336))
    chip, mesh = plans.described_mesh("v5e:2x4")
    function, shapes, logits = plans.loss(8 * mesh.size, mesh)
    found, moved = plans.plan(function, shapes, chip, mesh)
    assert found.temporary <= logits
    assert moved <= 20 * logits
    # The sum over the devices of the loss and of the number of positives.
    assert found.collectives.keys() <= {"all-reduce"} and found.collectives.total() <= 2


@pytest.mark.slow
def test_postprocessing_needs_no_collective_on_a_tpu(plans, monkeypatch):
    monkeypatch.setattr(plans, "CANVAS", (200, 336))
    chip, mesh = plans.described_mesh("v5e:2x4")
    function, shapes, _ = plans.postprocess(mesh.size, mesh)
    assert not plans.plan(function, shapes, chip, mesh).program.collectives
