"""A step on eight simulated devices has the loss, gradients and statistics of one device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from quick import xla_flags

HERE = Path(__file__).parent


@pytest.mark.extended
def test_eight_devices_give_the_step_of_one():
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": xla_flags(devices=8),
        "PYTHONPATH": f"{HERE.parent}:{HERE}",
    }
    done = subprocess.run(
        [sys.executable, str(HERE / "eight_devices.py")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("devices") == 8
    assert found.pop("augmentation_stays") and found.pop("matching_stays")
    detector = found.pop("detector")
    assert detector["devices"] == 8 and detector["difference"] < 1e-3
    for norm, numbers in found.items():
        one, eight = numbers["loss"]
        assert eight == pytest.approx(one, rel=1e-5), norm
        assert numbers["gradients"] < 3e-3, norm
        assert numbers["statistics"] < 1e-5, norm
