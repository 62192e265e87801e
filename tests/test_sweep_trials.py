"""The plan, the checks and the report of a sweep, without training."""

import csv
import json
import re
import shlex
import shutil

import pytest
from sweeps import SMALL, run

from retinanet_jax.config.experiment_files import load_experiment
from retinanet_jax.config.paper_base import base_config
from retinanet_jax.config.paper_tables import TABLES
from retinanet_jax.config.settings import (
    ConfigError,
    default_config,
    from_config_dict,
    to_json,
)
from retinanet_jax.runtime.preemption import EXIT_CODE, Preempted
from retinanet_jax.runtime.workdir import WorkdirError
from retinanet_jax.sweep import run_trial as trial_module
from retinanet_jax.sweep.grid import grid_axis, name_of, parse_field, product, zip_axis
from retinanet_jax.sweep.seed_comparison import compare
from retinanet_jax.sweep.sweep_report import write_report
from retinanet_jax.sweep.trials import (
    FINISHED,
    UNFINISHED,
    Trial,
    plan_trials,
    published,
    read_plan,
)
from retinanet_jax.training.evaluation import Evaluation
from retinanet_jax.training.run_length import with_run_length

TREE = default_config()


@pytest.fixture
def trained(monkeypatch):
    """Replaces training: AP is a function of gamma, alpha and seed. Returns the trials that ran.

    As a run does, it writes the config with numbers in place of 'auto'.
    """
    ran = []

    def train(config, workdir, cache):
        ran.append(workdir.name)
        (workdir / "config.json").write_text(to_json(with_run_length(config, 16)[0]))
        ap = config.loss.gamma / 10 + (config.loss.alpha or 0) / 10 + config.seed / 100
        return Evaluation({"AP": ap, "AP50": 2 * ap, "APs": None}, {}, [])

    monkeypatch.setattr(trial_module, "train_and_evaluate", train)
    return ran


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("loss.gamma=0,.5,2", [0.0, 0.5, 2.0]),
        ("train.steps=10", [10]),
        ("augmentation.flip=true,False", [True, False]),
        ("model.backbone=resnet18,resnet50", ["resnet18", "resnet50"]),
        ("anchors.scales=(1.0,),(1.0,1.5), (1, 2)", [(1.0,), (1.0, 1.5), (1, 2)]),
        ("seed=3", [3]),
    ],
)
def test_values_are_parsed_as_the_type_of_their_field(text, values):
    assert parse_field(text, TREE) == (text.split("=")[0], values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loss.gama=1", "config.loss.gama: no such field; did you mean gamma?"),
        ("los.gamma=1", "config.los: no such field; did you mean loss?"),
        ("loss=1", "config.loss: is a section"),
        ("loss.gamma.x=1", "config.loss.gamma: is a value"),
        ("loss.gamma=one", "config.loss.gamma: 'one' is invalid; write a number"),
        ("data.shapes.num_eval=1.5", "config.data.shapes.num_eval: '1.5' is invalid; write"),
        ("augmentation.flip=2", "write true or false"),
        ("loss.gamma=1,,2", "'' is invalid"),
        ("loss.gamma", "write SECTION.FIELD=VALUE"),
    ],
)
def test_wrong_fields_and_values_are_errors(text, expected):
    with pytest.raises(ConfigError, match=re.escape(expected)):
        grid_axis(text, TREE)


def test_the_product_of_axes_varies_the_first_slowest():
    pairs = zip_axis(["loss.gamma=0,2", "loss.alpha=.75,.25"], TREE)
    combined = product([pairs, [{"seed": 0}, {"seed": 1}]])
    assert [name_of(settings, settings) for settings in combined] == [
        "gamma=0,alpha=0.75,seed=0",
        "gamma=0,alpha=0.75,seed=1",
        "gamma=2,alpha=0.25,seed=0",
        "gamma=2,alpha=0.25,seed=1",
    ]
    assert product([]) == [{}] and name_of({}, {}) == "base"
    with pytest.raises(ConfigError, match=r"loss.gamma has 2, loss.alpha has 1"):
        zip_axis(["loss.gamma=0,2", "loss.alpha=.75"], TREE)
    with pytest.raises(ConfigError, match=r"loss\.gamma: varied twice"):
        product([pairs, grid_axis("loss.gamma=1", TREE)])
    with pytest.raises(ConfigError, match=r"gamma=2: appears twice"):
        product([grid_axis("loss.gamma=2,2.0", TREE)])


def test_names_are_unique_and_fit_into_a_file_system():
    settings = {"train.batch_size": 4, "evaluation.batch_size": 8, "model.pretrained": "a/b c.npz"}
    assert name_of(settings, settings) == (
        "train.batch_size=4,evaluation.batch_size=8,pretrained=a_b_c.npz"
    )
    long = [{"data.root": "x" * 300 + end} for end in "ab"]
    assert len({name_of(settings, settings) for settings in long}) == 2
    assert all(len(name_of(settings, settings)) < 140 for settings in long)


def test_all_trials_are_checked_before_any_runs(tmp_path, trained):
    words = [f"--workdir={tmp_path}", *SMALL]
    with pytest.raises(ConfigError) as error:
        run(*words, "--grid", "loss.gamma=1,-1", "--grid", "model.backbone=resnet18,resnet19")
    assert "gamma=1,backbone=resnet19: config.model.backbone" in str(error.value)
    assert "gamma=-1,backbone=resnet18" in str(error.value)
    assert not trained and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--seeds=2"], "need --config or --table"),
        ([*SMALL, "--table=1b"], "set only one of them"),
        (["--table=9"], "--table=9: not a table of the paper"),
        (["--table=1b:tiny"], "variant 'tiny' is not one of"),
        ([*SMALL, "--seeds=-1"], "must be at least 1"),
        ([*SMALL, "--workers=2"], "--workers needs --launcher=workers"),
        ([*SMALL, "--launcher=workers"], "set --workers=N"),
        ([*SMALL, "--launcher=workers", "--workers=9999"], "set at most"),
        ([*SMALL, "--slurm", "timeout_min=1"], "needs --launcher=slurm"),
        ([*SMALL, "--bogus=1"], "--bogus: no such flag"),
        ([*SMALL, "--config.loss.gamma=1,2"], "--config.loss.gamma=1,2: could not convert"),
        ([*SMALL, "--replay=3"], "--replay=3: not supported by sweep"),
    ],
)
def test_invalid_arguments_are_errors_before_anything_is_written(
    tmp_path, words, expected, monkeypatch
):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    try:
        message = str(run(f"--workdir={tmp_path}", *words))
    except ConfigError as error:
        message = str(error)
    assert expected in message
    assert not list(tmp_path.iterdir())


def test_flags_are_those_of_train(tmp_path, trained):
    """Also those that only absl's parser knows: --flag VALUE, --noflag, names of experiments."""
    words = ["--config=shapes:tiny", "--config.train.steps", "27", "--noconfig.augmentation.flip"]
    assert run(f"--workdir={tmp_path}", *words, "--verbosity=-1", "--grid", "seed=0,1") == 0
    for trial in read_plan(tmp_path):
        assert trial.config().train.steps == 27 and trial.config().augmentation.flip is False


def test_a_folder_without_a_sweep_or_with_a_damaged_one_is_an_error(tmp_path, trained):
    for command in (lambda: run(f"--workdir={tmp_path}"), lambda: write_report(tmp_path)):
        with pytest.raises(WorkdirError, match=r"sweep\.json: no such sweep; set --workdir"):
            command()
    words = [f"--workdir={tmp_path}", *SMALL, "--grid", "loss.gamma=0,2"]
    assert run(*words) == 0
    plan = tmp_path / "sweep.json"
    whole = plan.read_text()
    for damaged in (whole[:50], "", "[]", '{"trials": {"gamma=0": 3}}', "\0" * 40):
        plan.write_text(damaged)
        for command in (lambda: run(f"--workdir={tmp_path}"), lambda: run(*words)):
            with pytest.raises(WorkdirError, match=r"sweep\.json: damaged .*delete this file"):
                command()
    plan.unlink()
    assert run(*words) == 0 and len(trained) == 2  # the fix that the message names
    assert plan.read_text() == whole


def test_finished_trials_are_kept_and_another_plan_is_an_error(tmp_path, trained):
    words = [f"--workdir={tmp_path}", *SMALL]
    assert run(*words, "--grid", "loss.gamma=0,2") == 0
    assert trained == ["gamma=0", "gamma=2"]
    assert run(*words, "--grid", "loss.gamma=0,2") == 0 and len(trained) == 2
    with pytest.raises(WorkdirError, match=r"a different sweep: gamma=2 is missing; use another"):
        run(*words, "--grid", "loss.gamma=0,1")
    with pytest.raises(WorkdirError, match=r"gamma=0 has a different config"):
        run(*words, "--config.train.batch_size=2", "--grid", "loss.gamma=0,2")
    assert len(trained) == 2


def test_more_values_extend_a_sweep(tmp_path, trained):
    words = [f"--workdir={tmp_path}", *SMALL]
    assert run(*words, "--grid", "loss.gamma=0,2", "--seeds=1") == 0
    assert run(*words, "--grid", "loss.gamma=0,1,2", "--seeds=2") == 0
    assert len(trained) == 6 and len(set(trained)) == 6  # the first two were kept
    names = [trial.name for trial in read_plan(tmp_path)]
    assert names == [f"gamma={gamma},seed={seed}" for gamma in (0, 1, 2) for seed in (0, 1)]
    assert "Trials: 6 (6 finished" in (tmp_path / "report.md").read_text()


def test_a_sweep_with_auto_resumes_and_grows_by_its_command(tmp_path, trained, monkeypatch):
    working = raise_at_one(monkeypatch, Preempted("SIGTERM"))
    auto = ["--config.train.steps=auto", "--config.train.evaluate_every=auto"]
    words = [f"--workdir={tmp_path}", *SMALL, *auto, "--grid"]
    assert run(*words, "loss.gamma=0,1") == EXIT_CODE
    monkeypatch.setattr(trial_module, "train_and_evaluate", working)
    assert run(*words, "loss.gamma=0,1") == 0
    assert run(*words, "loss.gamma=0,1,2") == 0
    assert trained == ["gamma=0", "gamma=1", "gamma=2"]
    assert {trial.config().train.steps for trial in read_plan(tmp_path)} == {"auto"}


def test_a_sweep_of_before_resumes(tmp_path, trained, monkeypatch):
    """Its plan was in the config.json of each trial."""
    working = raise_at_one(monkeypatch, Preempted("SIGTERM"))
    words = [f"--workdir={tmp_path}", *SMALL, "--grid", "loss.gamma=0,1"]
    assert run(*words) == EXIT_CODE
    for trial in read_plan(tmp_path):
        (trial.workdir / "planned.json").rename(trial.workdir / "config.json")
    monkeypatch.setattr(trial_module, "train_and_evaluate", working)
    assert run(*words) == 0
    assert trained == ["gamma=0", "gamma=1"]
    with pytest.raises(WorkdirError, match=r"gamma=0 has a different config"):
        run(*words, "--config.train.batch_size=2")


def test_trials_with_the_same_programs_follow_each_other_and_so_do_those_with_the_same_data(
    tmp_path, trained
):
    axes = "seed=0,1", "data.shapes.num_train=16,8", "model.head_depth=1,2"
    axes = [word for axis in axes for word in ("--grid", axis)]
    assert run(f"--workdir={tmp_path}", *SMALL, *axes) == 0
    order = [
        (trial.config().model.head_depth, trial.config().data.shapes.num_train, trial.config().seed)
        for trial in (Trial(name, {}, tmp_path / name) for name in trained)
    ]
    assert order == [(depth, num, seed) for depth in (1, 2) for num in (16, 8) for seed in (0, 1)]


def test_a_deleted_trial_runs_again(tmp_path, trained):
    words = [f"--workdir={tmp_path}", *SMALL, "--grid", "loss.gamma=0,2"]
    assert run(*words) == 0
    shutil.rmtree(tmp_path / "gamma=2")
    with pytest.raises(WorkdirError, match=r"gamma=2/planned\.json: missing; start the sweep with"):
        run(f"--workdir={tmp_path}")
    assert run(*words) == 0
    assert trained == ["gamma=0", "gamma=2", "gamma=2"]


def test_a_plan_in_place_of_a_deleted_one_has_its_own_configs(tmp_path, trained):
    words = [f"--workdir={tmp_path}", *SMALL, "--grid", "loss.gamma=0,2"]
    assert run(*words) == 0
    (tmp_path / "sweep.json").unlink()
    assert run(*words, "--config.train.batch_size=2") == 0
    assert [trial.config().train.batch_size for trial in read_plan(tmp_path)] == [2, 2]


def raise_at_one(monkeypatch, error):
    """Trials of gamma 1 end with an error; returns what the others run."""
    working = trial_module.train_and_evaluate

    def fail_at_one(config, workdir, cache):
        if config.loss.gamma == 1:
            raise error
        return working(config, workdir, cache)

    monkeypatch.setattr(trial_module, "train_and_evaluate", fail_at_one)
    return working


def test_failed_trials_are_reported_and_run_again(tmp_path, trained, monkeypatch):
    working = raise_at_one(monkeypatch, RuntimeError("no luck | today\nand more"))
    words = [f"--workdir={tmp_path}", *SMALL, "--grid", "loss.gamma=0,1,2"]
    assert run(*words) == 1
    assert trained == ["gamma=0", "gamma=2"]
    report = (tmp_path / "report.md").read_text()
    assert "Trials: 3 (2 finished, 1 failed, 0 unfinished)." in report
    assert "- `gamma=1`: RuntimeError: no luck | today\n" in report
    assert "fail_at_one" in (tmp_path / "gamma=1/error.txt").read_text()
    monkeypatch.setattr(trial_module, "train_and_evaluate", working)
    assert run(f"--workdir={tmp_path}") == 0
    assert trained == ["gamma=0", "gamma=2", "gamma=1"]
    assert not (tmp_path / "gamma=1/error.txt").exists()


def test_a_signal_stops_the_sweep(tmp_path, trained, monkeypatch, capsys):
    raise_at_one(monkeypatch, Preempted("SIGTERM"))
    words = [f"--workdir={tmp_path}", *SMALL, "--grid", "loss.gamma=0,1,2"]
    assert run(*words) == EXIT_CODE
    assert "stopped by SIGTERM; the same command resumes" in capsys.readouterr().err
    assert [t.end().state for t in read_plan(tmp_path)] == [FINISHED, UNFINISHED, UNFINISHED]
    assert "Unfinished:\n\n- `gamma=1`\n- `gamma=2`" in write_report(tmp_path)


def test_print_commands_and_trial_run_one_trial_each(tmp_path, trained, capsys):
    words = [f"--workdir={tmp_path}", *SMALL, "--grid", "anchors.scales=(1.0,),(1.0,1.5)"]
    assert run(*words, "--print_commands") == 0 and not trained
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert len(commands) == 2 and commands[0][1:4] == ["-m", "retinanet_jax", "sweep"]
    assert run(*commands[1][4:]) == 0 and trained == ["scales=1x1.5"]
    with pytest.raises(ConfigError, match=r"no such trial; did you mean scales=1x1\.5"):
        run(f"--workdir={tmp_path}", "--trial=scales=1x1.6")
    capsys.readouterr()
    assert run(*words, "--print_commands") == 0
    assert "scales=1x1.5" not in capsys.readouterr().out


def test_the_report_has_means_over_seeds(tmp_path, trained):
    grid = ["--grid", "loss.gamma=0,2", "--grid", "loss.alpha=.25,.5", "--seeds=3"]
    assert run(f"--workdir={tmp_path}", *SMALL, *grid) == 0
    report = (tmp_path / "report.md").read_text()
    # AP is .025, .035, .045 over the seeds; APs is undefined.
    assert "| 0 | 0.25 | 3 of 3 | .035 ± .010 | .070 ± .020 | - |" in report
    assert "| 2 | 0.5 | 3 of 3 | .260 ± .010 | .520 ± .020 | - |" in report
    rows = list(csv.DictReader((tmp_path / "report.csv").open()))
    assert len(rows) == 12 and rows[0]["state"] == "finished" and rows[0]["APs"] == ""
    assert float(rows[5]["AP"]) == pytest.approx(0.07) and rows[5]["seed"] == "2"


def test_the_report_has_differences_paired_by_seed(tmp_path, monkeypatch):
    """AP rises by .1, .2 and .3 over three seeds: t = .2 / (.1 / sqrt(3)) = 3.4641, p .0742."""
    values = {(0.0, seed): 0.1 + seed / 5 for seed in range(3)}
    values |= {(2.0, seed): values[0.0, seed] + (seed + 1) / 10 for seed in range(3)}

    def train(config, workdir, cache):
        return Evaluation({"AP": values[config.loss.gamma, config.seed], "APs": None}, {}, [])

    monkeypatch.setattr(trial_module, "train_and_evaluate", train)
    grid = ["--grid", "loss.gamma=0,2", "--seeds=3"]
    assert run(f"--workdir={tmp_path}", *SMALL, *grid) == 0
    report = (tmp_path / "report.md").read_text()
    assert "| loss.gamma | seeds | AP | APs |" in report
    assert "| 2 | 3 | +.200 ± .100, p .074 |  |" in report


def test_differences_of_a_table_have_the_names_of_its_rows(tmp_path, trained):
    assert run(f"--workdir={tmp_path}", "--table=1a:small", "--seeds=2") == 0
    _, differences = (tmp_path / "report.md").read_text().split("paired by seed")
    for row in TABLES["1a"].rows[1:]:
        assert f"| {row.name} |" in differences


def test_one_seed_has_no_differences(tmp_path, trained):
    assert run(f"--workdir={tmp_path}", *SMALL, "--grid", "loss.gamma=0,2") == 0
    assert "paired" not in (tmp_path / "report.md").read_text()


def test_steps_csv_has_a_row_for_each_trial_seed_and_step(tmp_path, monkeypatch):
    def train(config, workdir, cache):
        lines = [
            {"step": 1, "kind": "train", "time": 7.0, "loss": 3.0},
            {"step": 2, "kind": "train", "time": 8.0, "loss": 2.0},
            {"step": 2, "kind": "eval", "time": 9.0, "AP": config.seed / 10, "APs": None},
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (workdir / "metrics.jsonl").write_text(text + '{"step": 3, "ki', encoding="utf-8")
        return Evaluation({"AP": 0.5}, {}, [])

    monkeypatch.setattr(trial_module, "train_and_evaluate", train)
    assert run(f"--workdir={tmp_path}", *SMALL, "--grid", "loss.gamma=1,2", "--seeds=2") == 0
    rows = list(csv.DictReader((tmp_path / "steps.csv").open()))
    keys = "trial", "loss.gamma", "seed", "step", "train/loss", "eval/AP", "eval/APs"
    assert tuple(rows[0]) == keys
    assert [tuple(row.values()) for row in rows[4:8]] == [
        ("gamma=2,seed=0", "2.0", "0", "1", "3.0", "", ""),
        ("gamma=2,seed=0", "2.0", "0", "2", "2.0", "0.0", ""),
        ("gamma=2,seed=1", "2.0", "1", "1", "3.0", "", ""),
        ("gamma=2,seed=1", "2.0", "1", "2", "2.0", "0.1", ""),
    ]
    shutil.rmtree(tmp_path / "gamma=2,seed=0")  # to repeat it, as the documents say
    write_report(tmp_path)
    left = {row["trial"] for row in csv.DictReader((tmp_path / "steps.csv").open())}
    assert left == {row["trial"] for row in rows} - {"gamma=2,seed=0"}


def test_two_sweeps_and_a_run_are_compared(tmp_path, trained):
    """AP is (gamma + alpha) / 10 + seed / 100: alpha .5 instead of .25 adds .025 to each trial.

    The mean of a seed counts once: three gammas are not three times as many samples.
    """
    for name, alpha in (("a", 0.25), ("b", 0.5)):
        words = f"--config.loss.alpha={alpha}", "--grid", "loss.gamma=0,2", "--seeds=2"
        assert run(f"--workdir={tmp_path / name}", *SMALL, *words) == 0
    (tmp_path / "b/gamma=2,seed=1" / "trial.json").unlink()
    text = compare(tmp_path / "a", tmp_path / "b")
    assert "Pairs: 3; trials without a pair: 1." in text
    assert "| AP | 2 | .080 | .105 | +.025 ± .000 |\n" in text and "APs" not in text
    assert "Settings that differ:\n- config.loss.alpha: A 0.25, B 0.5\n" in text
    for name, gammas in (("few", "0"), ("many", "0,1,2")):
        for side in "ab":
            folder = tmp_path / name / side
            assert (
                run(f"--workdir={folder}", *SMALL, f"--grid=loss.gamma={gammas}", "--seeds=2") == 0
            )
        for trial in (tmp_path / name / "b").glob("*/trial.json"):
            end = json.loads(trial.read_text())
            end["summary"]["AP"] = end["summary"]["AP"] - 0.5 + 0.02 * ("seed=1" in str(trial))
            trial.write_text(json.dumps(end))
    few, many = (compare(tmp_path / name / "a", tmp_path / name / "b") for name in ("few", "many"))
    assert "| AP | 2 | .030 | -.460 | -.490 ± .014, p .013 |" in few and "No setting differs" in few
    assert "Pairs: 6" in many and "| -.490 ± .014, p .013 |" in many

    assert run(f"--workdir={tmp_path / 'c'}", *SMALL, "--seeds=2") == 0
    alone = tmp_path / "c/seed=1"
    results = json.dumps({"summary": {"AP": 0.9}})
    (alone / "results.json").write_text(results, encoding="utf-8")
    assert "Pairs: 1; trials without a pair: 1." in compare(tmp_path / "c", alone)

    other = shutil.copytree(alone, tmp_path / "other")
    for folder, digest in ((alone, "a"), (other, "b")):
        data = {"dataset": f"{folder.name} val", "images": 9, "digest": digest, "metric": "coco"}
        results = json.dumps({"summary": {"AP": 0.9}, "measured": data})
        (folder / "results.json").write_text(results, encoding="utf-8")
    with pytest.raises(WorkdirError, match=r"coco on 9 images of seed=1 val, .* other val: not"):
        compare(alone, other)

    with pytest.raises(ConfigError, match="no finished trials with equal settings and seed"):
        compare(tmp_path / "a", alone)
    with pytest.raises(WorkdirError, match="no results of a sweep or a run"):
        compare(tmp_path / "a", tmp_path)


def test_the_paper_s_results_are_in_reports_of_its_tables_alone(tmp_path, trained):
    """gamma 2 with alpha .25 is a row of Table 1b, but on COCO and not on these data."""
    grid = ["--zip", "loss.gamma=0,2", "loss.alpha=.75,.25"]
    assert run(f"--workdir={tmp_path / 'grid'}", *SMALL, *grid) == 0
    assert run(f"--workdir={tmp_path / 'table'}", "--table=1b:small") == 0
    for name, expected in (("grid", False), ("table", True)):
        for file in ("report.md", "report.csv", "report.svg"):
            assert ("paper" in (tmp_path / name / file).read_text()) is expected, (name, file)
    rows = list(csv.DictReader((tmp_path / "table/report.csv").open()))
    assert [row["paper AP"] for row in rows[:2]] == ["0.311", "0.314"]


def test_tables_of_the_paper_are_sweeps(tmp_path, trained):
    assert run(f"--workdir={tmp_path}", "--table=1b:small") == 0
    trials = read_plan(tmp_path)
    rows = TABLES["1b"].rows
    assert [trial.paper["AP"] for trial in trials] == [pytest.approx(r.ap / 100) for r in rows]
    for trial, row in zip(trials, rows, strict=True):
        tree = base_config("1b", "small")
        tree.update_from_flattened_dict(row.settings_of("small"))
        assert trial.config() == from_config_dict(tree)


def test_a_plot_without_lines_has_rows(tmp_path, trained):
    assert run(f"--workdir={tmp_path}", "--table=1c:small") == 0
    plot = (tmp_path / "report.svg").read_text()
    for row in TABLES["1c"].rows:
        assert f">{row.name}</text>" in plot
    report = (tmp_path / "report.md").read_text()
    assert "| 3 scales, 1 ratio | (1, 1.26, 1.587) | (1) | 1 of 1 |" in report


@pytest.mark.parametrize("table", list(TABLES))
@pytest.mark.parametrize("variant", ["", ":small"])
def test_every_row_of_every_table_has_its_results(table, variant):
    for row in TABLES[table].rows:
        settings = row.settings_of(variant.lstrip(":")) | {"seed": 1, "train.steps": 7}
        found = published(settings, table + variant)
        assert found.pop("table") == table and found.pop("row") == row.name
        numbers = {"AP": row.ap, "AP50": row.ap50, "AP75": row.ap75} | row.also
        numbers = {k: v / 100 for k, v in numbers.items() if v is not None and k != "ms"}
        assert found == pytest.approx(numbers)


def test_a_swept_field_without_effect_is_an_error(tmp_path, monkeypatch):
    """Its trials would be the same run; with effect in some of them, a line says so."""
    tree, lines = load_experiment("shapes"), []
    monkeypatch.setattr("builtins.print", lines.append)
    gammas = [{"loss.gamma": 0.0}, {"loss.gamma": 2.0}]
    losses = [{"loss.classification": name} for name in ("focal", "cross_entropy")]
    plan_trials(tree, [gammas, losses], tmp_path)
    note = "2 of 4 trials: config.loss.gamma has no effect: loss.classification is cross_entropy"
    assert lines == [note]
    message = "config.loss.gamma: the sweep sets it, but it has no effect: loss.classification is"
    with pytest.raises(ConfigError, match=message):
        plan_trials(tree, [gammas, losses[1:]], tmp_path)
