"""Damaged input of every kind is read or refused: a few seeds of scripts/fuzz.py."""

import importlib.util
import json
import random
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "fuzz.py"
spec = importlib.util.spec_from_file_location("fuzz_script", SCRIPT)
fuzz = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fuzz)


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_damaged_input_is_read_or_refused(target, tmp_path):
    for seed in range(4):
        (folder := tmp_path / str(seed)).mkdir()
        assert fuzz.check(target, seed, folder) in ("read", "refused")


def test_every_damage_changes_its_file():
    data = json.dumps({"a": [1, "b", {"c": None}], "d": 2.5}).encode()
    for damage in fuzz.DAMAGES:
        assert any(damage(random.Random(seed), data) != data for seed in range(5))


def test_a_failure_is_counted_and_names_its_seed(monkeypatch, capsys):
    monkeypatch.setattr(fuzz, "check", lambda *_: 1 / 0)
    assert fuzz.fuzz(["coco"], seed=3, count=2, seconds=60) == 2
    assert "coco --seed=3 --count=1" in capsys.readouterr().out
