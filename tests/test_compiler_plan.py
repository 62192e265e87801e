"""scripts/compiler_plan.py: plans of matching, loss and post-processing for chips elsewhere.

They need libtpu or JAX's CUDA packages, and are skipped without.
"""

from pathlib import Path

import pytest

from retinanet_jax.config.settings import ConfigError
from retinanet_jax.training.plan.chips import described_mesh

SCRIPTS = Path(__file__).parent.parent / "scripts"
CHIPS = "v5e:2x4", "h200:8"
MIB = 2**20


@pytest.fixture
def plans(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import compiler_plan

    return compiler_plan


@pytest.fixture(params=CHIPS)
def chip(request):
    return described(request.param)


@pytest.fixture
def tpu():
    return described(CHIPS[0])


def described(chip):
    """Chip and mesh; skips the test where the compiler is not installed."""
    try:
        return described_mesh(chip)
    except ConfigError as error:
        pytest.skip(str(error))


def test_matching_needs_no_collective_and_less_than_80_mib(plans, chip):
    """At 800x1344 with 100 boxes, where one matrix of overlaps is 77 MiB."""
    chip, mesh = chip
    function, shapes, pairs = plans.matching(2 * mesh.size, mesh)
    found, moved = plans.plan(function, shapes, chip, mesh)
    assert not found.collectives
    if chip.platform == "tpu":
        # Written once and read twice they are 12 bytes a pair, and 4 more for results and anchors.
        assert found.temporary <= 80 * MIB and moved <= 18 * pairs
    else:
        assert found.temporary <= 2 * 80 * MIB


@pytest.mark.extended
def test_the_loss_has_no_copy_of_the_logits_on_a_tpu(plans, tpu, monkeypatch):
    """Value and gradient read and write 4 bytes for a logit and one for its state, and padding: 15
    at this size. A copy of the logits adds 8."""
    monkeypatch.setattr(plans, "CANVAS", (200, 336))
    chip, mesh = tpu
    function, shapes, logits = plans.loss(8 * mesh.size, mesh)
    found, moved = plans.plan(function, shapes, chip, mesh)
    assert found.temporary <= logits
    assert moved <= 20 * logits
    # The sum over the devices of the loss and of the number of positives.
    assert found.collectives.keys() <= {"all-reduce"} and found.collectives.total() <= 2


@pytest.mark.slow
def test_post_processing_needs_no_collective(plans, chip, monkeypatch):
    monkeypatch.setattr(plans, "CANVAS", (200, 336))
    chip, mesh = chip
    function, shapes, _ = plans.postprocess(mesh.size, mesh)
    assert not plans.plan(function, shapes, chip, mesh).program.collectives
