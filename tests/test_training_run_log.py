"""The log of a run: what it writes, and that a continued run repeats no step."""

import json
from unittest import mock

import numpy as np
import pytest

from retinanet_jax.training.run_log import RunLog


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_scalars_go_to_json_lines_and_tensorboard(tmp_path):
    with RunLog(tmp_path, 0, 10) as log:
        log.scalars(5, "train", {"loss": 1.5, "AP": float("nan")})
    (line,) = lines(tmp_path)
    assert (line["step"], line["kind"], line["loss"], line["AP"]) == (5, "train", 1.5, None)
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_a_continued_run_drops_the_lines_after_its_start(tmp_path):
    with RunLog(tmp_path, 0, 10) as log:
        for step in (2, 4, 6):
            log.scalars(step, "train", {"loss": 0.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "ki')  # cut by a crash
    with RunLog(tmp_path, 4, 10) as log:
        log.scalars(6, "train", {"loss": 1.0})
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(2, 0), (4, 0), (6, 1)]


def test_beside_a_run_nothing_is_taken_out_and_nothing_goes_astray(tmp_path):
    with RunLog(tmp_path, 0, 10) as log:
        log.scalars(6, "train", {"loss": 0.0})
        with RunLog(tmp_path, None, 4) as beside:
            beside.scalars(4, "eval", {"AP": 0.5})
        assert beside.has_evaluation(4) and not beside.has_evaluation(6)
        # Another process puts a new file there, as a run that is continued does.
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
    with RunLog(tmp_path, 0, 10) as log:
        worker = log._tensorboard.file_writer.event_writer._worker
        worker._record_writer.write_event = mock.Mock(side_effect=OSError("the disk is gone"))
        log.scalars(1, "train", {"loss": 0.0})
        worker.join(30)
        for step in range(2, 40):
            log.scalars(step, "train", {"loss": 0.0})
    assert len(lines(tmp_path)) == 39
    assert capsys.readouterr().out.count("cannot write TensorBoard's file") == 1


def test_images_are_files_with_the_right_colours(tmp_path):
    import cv2

    image = np.zeros((8, 9, 3), np.uint8)
    image[..., 0] = 200
    with RunLog(tmp_path, 0, 1) as log:
        path = log.image(3, "detections", image)
    assert path == tmp_path / "images" / "detections_000003.png"
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], image)


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
