"""Sweeps: compiled once, killed and gone on with, failures told, every launcher the same."""

import logging
import time

import jax
import pytest
from sweeps import SMALL, run

from retinanet_jax.sweep.plan import FINISHED, read_plan


def test_a_grid_of_gamma_and_alpha_compiles_once(tmp_path, caplog):
    """5 gammas, 3 alphas, and two seeds at one of them."""
    words = [*SMALL, "--config.train.steps=1", f"--config.data.cache_dir={tmp_path / 'cache'}"]
    grid = ["--grid", "loss.gamma=0,0.5,1,2,5", "--grid", "loss.alpha=.25,.5,.75"]
    start = time.process_time()
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        assert run(f"--workdir={tmp_path / 'sweep'}", *words, *grid) == 0
    print(time.process_time() - start)
    trials = read_plan(tmp_path / "sweep")
    assert len(trials) == 15 and {trial.end().state for trial in trials} == {FINISHED}
    compiled = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Compiling")]
    print("\n".join(m[:60] for m in compiled))
