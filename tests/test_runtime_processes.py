"""Real runs of several processes: the results of one process, and a common end."""

import fcntl
import json
import signal
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from launched import STEPS, end, free_port, launch, output_of, run

from retinanet_jax.runtime.checkpoints import Checkpoints
from retinanet_jax.runtime.find_processes import Launch, ProcessesError
from retinanet_jax.runtime.processes import check_same, joined

LAUNCHERS = ("OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "TPU_ML_PLATFORM")
LAUNCHERS += ("OMPI_MCA_orte_hnp_uri", "KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX")
LAUNCHERS += ("TPU_SKIP_MDS_QUERY", "TPU_WORKER_HOSTNAMES", "MEGASCALE_NUM_SLICES")
ENTRIES = ("params", "batch_stats", "opt_state", "step")


def lines(workdir: Path, kind: str) -> list[dict]:
    path = workdir / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    entries = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
    return [entry for entry in entries if entry["kind"] == kind]


def wait_for_step(processes: list[subprocess.Popen], workdir: Path, step: int) -> None:
    deadline = time.monotonic() + 600
    while not any(line["step"] >= step for line in lines(workdir, "train")):
        assert not any(p.poll() for p in processes), output_of(workdir, 0).read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_numbers_of_one_process(workdir: Path, alone: Path) -> None:
    """The same order of data and losses up to rounding, and one line per step."""
    ours, theirs = lines(workdir, "train"), lines(alone, "train")
    assert [line["step"] for line in ours] == [*range(1, STEPS + 1)]
    tolerances = {"loss": 1e-5, "class_loss": 1e-5, "box_loss": 1e-5, "gradient_norm": 1e-3}
    for name, tolerance in tolerances.items():
        values = [[line[name] for line in run_lines] for run_lines in (ours, theirs)]
        np.testing.assert_allclose(*values, rtol=tolerance, err_msg=name)


def assert_same_evaluation(workdir: Path, devices: int) -> None:
    """One process evaluates the checkpoint of several to the same bits."""
    names = ("detections.json", "results.json")
    before = [json.loads((workdir / name).read_text()) for name in names]
    assert len(before[0]) > 100 and before[1]["summary"]["AR100"] > 0
    run(workdir, 1, devices, "--mode=evaluate")
    assert [json.loads((workdir / name).read_text()) for name in names] == before
    assert len(lines(workdir, "eval")) == 2


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    """The workdir of an uninterrupted run of two processes."""
    workdir = tmp_path_factory.mktemp("runs") / "straight"
    run(workdir, 2, 2)
    return workdir


@pytest.mark.slow
def test_two_processes_give_the_results_of_one(straight):
    alone = straight.with_name("alone")
    run(alone, 1, 4)
    assert_numbers_of_one_process(straight, alone)
    assert_same_evaluation(straight, 4)


@pytest.mark.slow
def test_four_processes_give_the_results_of_one(tmp_path):
    alone, four = tmp_path / "alone", tmp_path / "four"
    run(four, 4, 2)
    run(alone, 1, 8)
    assert_numbers_of_one_process(four, alone)
    assert_same_evaluation(four, 8)


def assert_same_end(workdir: Path, other: Path) -> None:
    """Parameters, optimizer and losses of the other run, to the last bit."""
    ours, theirs = (Checkpoints(w / "checkpoints") for w in (workdir, other))
    assert ours.latest_step() == theirs.latest_step() == STEPS
    leaves = (jax.tree.leaves(checkpoints.read_part(ENTRIES)) for checkpoints in (ours, theirs))
    for x, y in zip(*leaves, strict=True):
        np.testing.assert_array_equal(x, y)
    losses = [[(x["step"], x["loss"]) for x in lines(w, "train")] for w in (workdir, other)]
    assert losses[0] == losses[1] and len(losses[0]) == STEPS


@pytest.mark.slow
def test_a_signal_to_one_stops_all_a_kill_ends_all_and_a_restart_resumes(straight):
    workdir = straight.with_name("stopped")
    processes = launch(workdir, 2, 2)
    wait_for_step(processes, workdir, 4)
    processes[1].send_signal(signal.SIGTERM)
    assert end(processes, 900) == [75, 75]
    step = Checkpoints(workdir / "checkpoints").latest_step()
    assert 4 <= step < STEPS
    assert f"SIGTERM: saved step {step}" in output_of(workdir, 0).read_text()
    for number in (0, 1):
        assert "stopped by SIGTERM; the same command" in output_of(workdir, number).read_text()

    processes = launch(workdir, 2, 2)
    wait_for_step(processes, workdir, step + 3)
    processes[0].kill()
    codes = end(processes, 900)
    assert codes[1] not in (0, 75)
    last = output_of(workdir, 1).read_text().strip().splitlines()[-1]
    assert "process 1 of 2" in last and "Start all processes again with the same command" in last

    run(workdir, 2, 2)
    assert_same_end(workdir, straight)


@pytest.mark.slow
def test_a_killed_process_ends_the_others(straight):
    workdir = straight.with_name("killed")
    processes = launch(workdir, 2, 2)
    wait_for_step(processes, workdir, 7)
    processes[1].kill()
    assert end(processes, 900)[0] not in (0, 75)
    last = output_of(workdir, 0).read_text().strip().splitlines()[-1]
    assert "Start all processes again with the same command" in last
    run(workdir, 2, 2)
    assert_same_end(workdir, straight)


@pytest.mark.slow
def test_processes_without_a_shared_folder_resume_from_object_storage(straight, monkeypatch):
    """A folder in place of a bucket; the second start finds empty disks."""
    monkeypatch.setenv("FSSPEC_FILE_AUTO_MKDIR", "1")
    storage = straight.with_name("bucket") / "run"
    for name, steps in (("first", 9), ("second", STEPS)):
        disk = straight.with_name(name)
        flags = [f"--workdir=file://{storage}", f"--config.data.cache_dir={disk}NUMBER"]
        run(disk, 2, 2, *flags, f"--config.train.steps={steps}")
        assert (disk.with_name(f"{name}0") / "workdirs").exists()
        assert not (disk.with_name(f"{name}1") / "workdirs").exists()
    assert_same_end(storage, straight)


@pytest.mark.slow
def test_a_replay_by_two_processes_is_the_step_as_it_was(straight):
    run(straight, 2, 2, "--replay=8")
    report = json.loads((straight / "replay/step_000008/report.json").read_text())
    (line,) = (line for line in lines(straight, "train") if line["step"] == 8)
    assert report["values"]["loss"] == pytest.approx(line["loss"], rel=1e-6)
    assert len(report["losses_by_image"]) == 8  # the whole batch, not the rows of process 0


@pytest.mark.slow
def test_divergence_of_a_run_of_two_processes_ends_both_with_one_report(tmp_path):
    workdir = tmp_path / "diverged"
    processes = launch(workdir, 2, 2, "--config.optimizer.learning_rate=1e30")
    assert end(processes, 900) == [1, 1]
    for number in (0, 1):
        assert "DivergenceError: step 2: " in output_of(workdir, number).read_text()
    (folder,) = (workdir / "divergence").iterdir()
    assert (folder / "batch.png").stat().st_size > 1000


@pytest.mark.slow
def test_a_hang_of_one_process_is_reported_by_the_other(tmp_path):
    workdir, report = tmp_path / "hang", tmp_path / "hang/watchdog.txt"
    # The first step compiles for longer than these 6 seconds, and is reported as well.
    processes = launch(workdir, 2, 2, "--config.train.watchdog_minutes=0.1")
    wait_for_step(processes, workdir, 3)
    before = report.stat().st_size if report.exists() else 0
    processes[1].send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 25  # jax.distributed gives up after 30 seconds
    while not report.exists() or report.stat().st_size <= before + 500:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGCONT)
    text = report.read_text()[before:]
    assert "no progress for 0.1 minutes, stage " in text and "loop.py" in text
    assert end(processes, 900) == [0, 0]


@pytest.mark.extended
def test_an_error_of_one_process_ends_all_with_its_message(tmp_path):
    workdir = tmp_path / "held"
    workdir.mkdir()
    with (workdir / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert end(launch(workdir, 2, 1), 900) == [1, 1]
    # Gloo may have printed something before.
    assert output_of(workdir, 0).read_text().splitlines()[-1].startswith("WorkdirError: ")
    assert f"process 0 ended: WorkdirError: {workdir}: in use by another run" in (
        output_of(workdir, 1).read_text()
    )


@pytest.fixture
def environment(monkeypatch):
    """Without the variables of any launcher."""
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "together"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "8"}, False),  # a batch script, before srun
        ({"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "1"}, False),
        ({"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "2"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:1"}, True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),
        ({"TPU_ML_PLATFORM": "JAX"}, True),
        ({"TPU_ML_PLATFORM": "JAX", "TPU_SKIP_MDS_QUERY": "1"}, False),  # Colab
        ({"TPU_ML_PLATFORM": "JAX", "TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_ML_PLATFORM": "JAX", "TPU_WORKER_HOSTNAMES": "a.b,c.b"}, True),
    ],
)
def test_launchers_of_several_processes_are_recognized(variables, together, environment):
    for name, value in variables.items():
        environment.setenv(name, value)
    assert Launch().find() == ({} if together else None)
    assert Launch(num_processes=1).find() is None
    found = Launch("10.0.0.1:1234", 2, 1).find()
    assert found["coordinator_address"] == "10.0.0.1:1234" and found["process_id"] == 1


@pytest.mark.parametrize(
    ("launch", "expected"),
    [
        (Launch("10.0.0.1:1", 2, None), "set all three"),
        (Launch(None, 2, None), "set all three"),
        (Launch(None, None, 0), "set all three"),
        (Launch("10.0.0.1", 2, 0), "--coordinator=10.0.0.1: set HOST:PORT"),
        (Launch("10.0.0.1:1", 2, 2), "--process_id=2: .* 1$"),
        (Launch("10.0.0.1:1", 2, -1), "--process_id=-1"),
    ],
)
def test_invalid_flags_are_errors(launch, expected):
    with pytest.raises(ProcessesError, match=expected):
        launch.find()


def test_open_mpi_without_an_address_is_an_error_that_names_the_flags(environment):
    environment.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(ProcessesError, match=r"--num_processes=\$OMPI_COMM_WORLD_SIZE"):
        Launch().find()


def test_no_answer_is_an_error_that_names_the_address():
    address = f"127.0.0.1:{free_port()}"
    expected = f"{address}: no answer from process 0 within 1 s"
    launch = Launch(address, 2, 1, timeout=1)
    with pytest.raises(ProcessesError, match=expected), joined(launch, lambda error: None):
        pytest.fail("joined nobody")


def test_a_single_process_joins_nothing(environment):
    with joined(Launch(), lambda error: None):
        check_same("numbers", {"a": (1, 2)})
    with pytest.raises(ZeroDivisionError), joined(Launch(), lambda error: None):
        _ = 1 / 0
