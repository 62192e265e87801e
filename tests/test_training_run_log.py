"""The log of a run: files, loggers, and that a resumed run repeats no step."""

import json
import struct
import sys
from unittest import mock

import numpy as np
import pytest
from small import small_config

from retinanet_jax.config.settings import ConfigError
from retinanet_jax.training.loggers import StopRun, open_loggers
from retinanet_jax.training.run_log import RunLog


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_scalars_go_to_json_lines_and_tensorboard(tmp_path):
    with RunLog(tmp_path, 0, 10, True, open_loggers(["tensorboard"], tmp_path, 0)) as log:
        log.scalars(5, "train", {"loss": 1.5, "AP": float("nan")})
    (line,) = lines(tmp_path)
    assert (line["step"], line["kind"], line["loss"], line["AP"]) == (5, "train", 1.5, None)
    assert list((tmp_path / "tensorboard").glob("events*"))


class Recorder:
    """A logger that keeps what it gets, and fails at one step."""

    def __init__(self, fails_at=None):
        self.got, self._fails_at = [], fails_at

    def log_scalars(self, step, scalars):
        if step == self._fails_at:
            raise ConnectionError("no route to the server")
        self.got.append((step, dict(scalars)))

    def log_images(self, step, images):
        self.got.append((step, {name: image.shape for name, image in images.items()}))

    def log_config(self, config):
        self.got.append(config)

    def close(self):
        self.got.append("closed")


def test_a_logger_that_raises_is_switched_off_and_the_run_continues(tmp_path, capsys):
    works, fails, calls = Recorder(), Recorder(fails_at=2), []
    own = [works, fails, lambda step, scalars: calls.append((step, scalars))]
    with RunLog(tmp_path, 0, 3, True, open_loggers([], tmp_path, 0, own)) as log:
        log.config({"seed": 1})
        for step in (1, 2, 3):
            log.scalars(step, "train", {"loss": float(step), "AP": None})
        log.image(3, "drawn", np.zeros((4, 5, 3), np.uint8))
    scalars = [(step, {"train/loss": float(step)}) for step in (1, 2, 3)]
    assert works.got == [{"seed": 1}, *scalars, (3, {"drawn": (4, 5, 3)}), "closed"]
    assert calls == scalars
    assert fails.got == [{"seed": 1}, *scalars[:1]]
    output = capsys.readouterr().out
    assert output.count("warning: Recorder is switched off after an error") == 1
    assert "ConnectionError: no route to the server" in output
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]


def test_a_logger_can_end_the_run(tmp_path):
    def prune(step, scalars):
        if scalars.get("eval/AP", 1) < 0.2:
            raise StopRun(f"pruned at {step}")

    loggers = open_loggers([], tmp_path, 0, [prune])
    with pytest.raises(StopRun, match="pruned at 2"), RunLog(tmp_path, 0, 3, True, loggers) as log:
        log.scalars(1, "train", {"loss": 3.0})
        log.scalars(2, "eval", {"AP": 0.1})
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


def test_loggers_that_cannot_be_used_are_errors(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with pytest.raises(ConfigError, match=r"'wandb' is not installed; .*retinanet_jax\[wandb\]"):
        open_loggers(["wandb"], tmp_path, 0)
    with pytest.raises(ConfigError, match="7 is not a logger; give a function of"):
        open_loggers([], tmp_path, 0, [7])
    with pytest.raises(ConfigError, match=r"train\.loggers: 'csv' is not one of tensorboard"):
        small_config(train__loggers=("csv",))


def test_wandb_offline_keeps_its_run_when_it_resumes(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for first in (0, 2):
        with RunLog(tmp_path, first, 4, True, open_loggers(["wandb"], tmp_path, first)) as log:
            log.config({"seed": 1})
            log.scalars(first + 1, "train", {"loss": 0.5})
    folders = list((tmp_path / "wandb").glob("offline-run-*"))
    assert len(folders) == 2 and len({folder.name[-8:] for folder in folders}) == 1
    # Its records are protocol buffers, not compressed; W&B no longer has a reader in Python.
    parts = sorted(path.read_bytes() for path in tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert all(b"train/loss" in part and b"seed" in part for part in parts) and len(parts) == 2


def test_mlflow_keeps_its_run_when_it_resumes(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for first in (0, 2):
        with RunLog(tmp_path, first, 4, True, open_loggers(["mlflow"], tmp_path, first)) as log:
            log.config({"seed": 1})
            log.scalars(first + 1, "train", {"loss": 0.5 - first / 10, "loss/of_boxes": 0.1})
            log.image(first + 1, "drawn", np.zeros((4, 5, 3), np.uint8))
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("retinanet_jax").experiment_id])
    found = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "train/loss")]
    assert found == [(1, 0.5), (3, 0.3)] and run.data.metrics["train/loss_of_boxes"] == 0.1
    assert run.info.status == "FINISHED"
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert names == {"config.json", "drawn_000001.png", "drawn_000003.png"}


def test_a_resumed_run_removes_the_lines_after_its_start(tmp_path):
    with RunLog(tmp_path, 0, 10) as log:
        for step in (2, 4, 6):
            log.scalars(step, "train", {"loss": 0.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "ki')  # cut by a crash
    with RunLog(tmp_path, 4, 10) as log:
        log.scalars(6, "train", {"loss": 1.0})
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(2, 0), (4, 0), (6, 1)]


def test_an_evaluation_during_a_run_keeps_all_lines(tmp_path):
    with RunLog(tmp_path, 0, 10) as log:
        log.scalars(6, "train", {"loss": 0.0})
        with RunLog(tmp_path, None, 4) as beside:
            beside.scalars(4, "eval", {"AP": 0.5})
        assert beside.has_evaluation(4) and not beside.has_evaluation(6)
        # Another process puts a new file there, as a run that resumes does.
        with RunLog(tmp_path, 6, 10):
            log.scalars(8, "train", {"loss": 0.0})
    assert [line["step"] for line in lines(tmp_path)] == [6, 4, 8]


def test_a_line_that_a_crash_cut_does_not_swallow_the_next(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 4, "kind": "train"}\n{"step": 8, "ki')
    with RunLog(tmp_path, None, 4) as beside:
        beside.scalars(4, "eval", {"AP": 0.5})
        assert beside.has_evaluation(4)
    with RunLog(tmp_path, 4, 10):
        pass
    assert [line["kind"] for line in lines(tmp_path)] == ["train", "eval"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_tensorboard_does_not_stop_the_run(tmp_path, capsys):
    loggers = open_loggers(["tensorboard"], tmp_path, 0)
    with RunLog(tmp_path, 0, 10, True, loggers) as log:
        worker = loggers[0]._writer.file_writer.event_writer._worker
        worker._record_writer.write_event = mock.Mock(side_effect=OSError("the disk is gone"))
        log.scalars(1, "train", {"loss": 0.0})
        worker.join(30)
        for step in range(2, 40):
            log.scalars(step, "train", {"loss": 0.0})
    assert len(lines(tmp_path)) == 39
    assert capsys.readouterr().out.count("TensorBoardLogger is switched off") == 1


def test_images_are_files_with_the_right_colours(tmp_path):
    import cv2

    image = np.zeros((8, 9, 3), np.uint8)
    image[..., 0] = 200
    with RunLog(tmp_path, 0, 1) as log:
        path = log.image(3, "detections", image)
    assert path == tmp_path / "images" / "detections_000003.png"
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], image)


def test_tensorboard_shows_images_with_the_right_colours(tmp_path):
    import cv2
    from tensorboardX.proto.event_pb2 import Event

    image = np.zeros((8, 16, 3), np.uint8)
    image[..., 0] = 200
    with RunLog(tmp_path, 0, 1, True, open_loggers(["tensorboard"], tmp_path, 0)) as log:
        log.image(3, "detections", image)
    (file,) = (tmp_path / "tensorboard").glob("events*")
    content, events = file.read_bytes(), []
    while content:  # TFRecord: length, its checksum, an event, its checksum
        (length,) = struct.unpack("<Q", content[:8])
        events.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    ((step, value),) = [(e.step, v) for e in events for v in e.summary.value if v.HasField("image")]
    assert (step, value.tag, value.image.height, value.image.width) == (3, "detections", 8, 16)
    shown = cv2.imdecode(np.frombuffer(value.image.encoded_image_string, np.uint8), 1)[..., ::-1]
    np.testing.assert_allclose(shown.astype(int), image, atol=3)


def test_table_and_lines_on_a_plain_terminal(tmp_path, capsys):
    with RunLog(tmp_path, 0, 4) as log:
        log.progress_line(2, "12.0 images/s")
        log.table("validation", {"AP": 0.5})
    printed = capsys.readouterr().out
    assert "step 2/4  12.0 images/s" in printed
    assert "AP" in printed and "0.5000" in printed


def test_other_processes_write_nothing(tmp_path):
    with RunLog(tmp_path / "w", 0, 4, active=False) as log:
        log.scalars(1, "train", {"loss": 1.0})
        log.progress_line(1, "")
        log.message("hello")
        log.image(1, "x", np.zeros((4, 4, 3), np.uint8))
    assert not (tmp_path / "w").exists()
