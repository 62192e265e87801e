"""The configuration: every experiment builds; unknown fields and invalid values are errors."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from retinanet_jax.config.canvas_flag import read_canvas
from retinanet_jax.config.command_line import explain_flag
from retinanet_jax.config.experiment_files import (
    explain_unknown_field,
    load_config,
    load_experiment,
)
from retinanet_jax.config.recipes import RECIPES
from retinanet_jax.config.settings import (
    Config,
    ConfigError,
    default_config,
    from_config_dict,
    from_json,
    read_config_file,
    to_json,
)
from retinanet_jax.data.pipeline.canvas import PipelineConfig
from retinanet_jax.runtime import accelerator

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
STORED = Path(__file__).parent / "config_before_words.json"
VARIANTS = {
    "shapes": ("", "tiny"),
    "folder": ("", "resnet50", "small"),
    "coco": ("", "flips", "r50_3x", "r101", "x101", "r50_500", "lsj", *RECIPES),
    "voc": ("", "r101"),
    "paper/table1a": ("", "small"),
    "paper/table1b": ("", "small"),
    "paper/table1c": ("", "small"),
    "paper/table1d": ("", "small"),
    "paper/table1e": ("", "small"),
    "paper/table2": ("", "small"),
    "paper/table3": ("", "small"),
    "paper/prior": ("", "small"),
}


def changed(**fields):
    tree = default_config()
    tree.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return tree


@pytest.mark.parametrize(
    ("name", "variant"), [(name, v) for name, variants in VARIANTS.items() for v in variants]
)
def test_experiments_build(name, variant):
    tree = load_experiment(f"{EXPERIMENTS / name}.py:{variant}")
    tree.data.root = "somewhere"
    config = from_config_dict(tree)
    assert config.data.name in (name, "coco" if variant == "" else "shapes")
    assert from_json(to_json(config)) == config


def test_every_experiment_file_is_tested_and_explains_itself():
    files = {
        str(path.relative_to(EXPERIMENTS).with_suffix("")) for path in EXPERIMENTS.rglob("*.py")
    }
    assert files == set(VARIANTS)
    for name in files:
        text = (EXPERIMENTS / f"{name}.py").read_text(encoding="utf-8")
        assert f"--config=experiments/{name}.py" in text.split('"""')[1]


def test_defaults_are_those_of_the_sections():
    config = from_config_dict(changed(model__pretrained="x"))
    expected = Config()
    model = dataclasses.replace(expected.model, pretrained="x")
    assert config == dataclasses.replace(expected, model=model)


@pytest.mark.parametrize(
    ("field", "number"),
    [
        ("loss.alpha", 0.25),
        ("loss.hard_examples", 128),
        ("matching.crowd_ioa", 0.5),
        ("optimizer.gradient_clip", 10.0),
        ("optimizer.ema_decay", 0.99),
        ("train.evaluate_every", 100),
        ("train.watchdog_minutes", 2.5),
    ],
)
def test_none_switches_a_field_off(field, number):
    section, name = field.split(".")
    for written, expected in (("none", None), (None, None), (number, number)):
        config = from_config_dict(changed(**{f"{section}__{name}": written}))
        value = getattr(getattr(config, section), name)
        assert value == expected and type(value) is type(expected)
        assert from_json(to_json(config)) == config


@pytest.mark.parametrize(
    ("text", "value"),
    [("none", None), (".25", 0.25), ("1", 1.0), ("0.75", 0.75)],
)
def test_a_flag_takes_a_number_or_a_word(text, value):
    assert from_config_dict(parsed(f"--config.loss.alpha={text}")).loss.alpha == value


def test_flags_set_words_of_every_kind():
    config = from_config_dict(
        parsed(
            "--config.model.pretrained=weights.npz",
            "--config.model.frozen_stages=auto",
            "--config.optimizer.backbone_factor=auto",
            "--config.optimizer.gradient_clip=10",
            "--config.train.evaluate_every=none",
        )
    )
    assert (config.model.pretrained, config.model.frozen_stages) == ("weights.npz", 2)
    assert (config.optimizer.backbone_factor, config.optimizer.gradient_clip) == (0.1, 10.0)
    assert config.train.evaluate_every is None


def parsed(*arguments):
    values, argv = flags.FlagValues(), ["program", *arguments]
    config_flags.DEFINE_config_dict("config", default_config(), flag_values=values, sys_argv=argv)
    values(argv)
    return values.config


def test_anchors_take_their_levels_from_the_model():
    config = from_config_dict(changed(model__backbone_levels=(3, 4), model__max_level=6))
    assert (config.anchors.min_level, config.anchors.max_level) == (3, 6)


@pytest.mark.parametrize(
    ("pretrained", "norm", "chosen"),
    [
        ("none", "auto", ("batch", 0, 1.0)),
        ("w.npz", "auto", ("frozen_batch", 2, 0.1)),
        ("w.npz", "batch", ("batch", 2, 0.3)),
    ],
)
def test_auto_depends_on_pretrained_weights(pretrained, norm, chosen):
    fields = {"model__norm": norm, "model__frozen_stages": "auto"}
    fields |= {"optimizer__backbone_factor": "auto", "model__pretrained": pretrained}
    config = from_config_dict(changed(**fields))
    model, factor = config.model, config.optimizer.backbone_factor
    assert (model.norm, model.frozen_stages, factor) == chosen


@pytest.mark.parametrize(("pretrained", "stages"), [("none", 0), ("w.npz", 3)])
def test_random_weights_are_never_frozen(pretrained, stages):
    config = from_config_dict(changed(model__frozen_stages=3, model__pretrained=pretrained))
    assert config.model.frozen_stages == stages


@pytest.mark.parametrize(
    ("field", "value", "fix"),
    [
        ("loss.alpha", -1.0, "write 'none' for no weighting"),
        ("loss.alpha", "off", "write a number or 'none'"),
        ("loss.hard_examples", 0, "write 'none' or 1 or more"),
        ("loss.hard_examples", 2.5, "write a whole number or 'none'"),
        ("matching.crowd_ioa", -1.0, "write 'none' to drop crowds"),
        ("model.frozen_stages", -2, "write 'auto' or 0 to 5"),
        ("model.frozen_stages", 6, "write 'auto' or 0 to 5"),
        ("model.pretrained", "", "write a path, a URL or 'none'"),
        ("optimizer.backbone_factor", -0.1, "must be at least 0 or 'auto'"),
        ("optimizer.backbone_factor", "none", "write a number or 'auto'"),
        ("optimizer.gradient_clip", 0.0, "write 'none' or a number above 0"),
        ("optimizer.ema_decay", 0.0, "write 'none' or a number above 0"),
        ("train.evaluate_every", 0, "write 'none' or a number above 0"),
        ("train.watchdog_minutes", 0.0, "write 'none' or a number above 0"),
    ],
)
def test_numbers_that_meant_off_or_auto_name_the_word(field, value, fix):
    with pytest.raises(ConfigError) as error:
        from_config_dict(changed(**{field.replace(".", "__"): value}))
    assert f"config.{field}: {value!r} " in str(error.value) and fix in str(error.value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"model__backbone": "resnet49"}, "config.model.backbone: 'resnet49' is not one of resnet"),
        ({"model__norm": "frozen_batch"}, "write 'auto', or set config.model.pretrained"),
        ({"train__steps": 0}, "config.train.steps: 0 must be at least 1"),
        ({"optimizer__accumulate_steps": 3}, "does not divide config.train.batch_size (16)"),
        ({"data__name": "folder"}, "config.data.root: is empty"),
        ({"data__name": "imagenet"}, "config.data.name: 'imagenet' is not one of shapes, folder"),
        ({"pipeline__max_side": 10}, "config.pipeline.max_side: 10"),
        ({"loss__gamma": -1.0}, "config.loss.gamma"),
        (
            {"data__shapes__max_objects": 0},
            "config.data.shapes.max_objects: 0 must be from 1 to 100",
        ),
        ({"data__shapes__num_train": 0}, "config.data.shapes.num_train: 0 must be at least 1"),
        (
            {"data__shapes__image_size": (128,)},
            "config.data.shapes.image_size: (128,) has 1 v",
        ),
        (
            {"data__shapes__image_size": (128, 16)},
            "config.data.shapes.image_size: (128, 16) must have",
        ),
        ({"data__shapes__size_range": (0.02, 0.2)}, "makes shapes smaller than 3 pixels"),
        ({"seed": -1}, "config.seed: -1 must be at least 0"),
        ({"pixels__std": (1.0, 1.0)}, "config.pixels.std: (1.0, 1.0) has 2 values; write 3"),
        (
            {"pixels__mean": (0.0, float("nan"), 0.0)},
            "config.pixels.mean: (0.0, nan, 0.0) is not f",
        ),
        (
            {"anchors__scales": (1.0, "a")},
            "config.anchors.scales: 'a' in (1.0, 'a') is not a number",
        ),
        (
            {"model__backbone_levels": (3, 4.5)},
            "config.model.backbone_levels: 4.5 in (3, 4.5) is n",
        ),
        ({"evaluation__example_min_score": 5.0}, "config.evaluation.example_min_score: 5.0 is not"),
        ({"augmentation__mosaic": 2.0}, "config.augmentation.mosaic: 2.0 must be from 0 to 1"),
        (
            {"augmentation__scales": (640, 1400)},
            "config.augmentation.scales: (640, 1400) must be at most pipeline.max_side, 1333",
        ),
    ],
)
def test_invalid_values_name_the_fix(fields, says):
    with pytest.raises(ConfigError) as error:
        from_config_dict(changed(**fields))
    assert says in str(error.value)


def test_numbers_of_numpy_are_numbers():
    config = from_config_dict(changed(train__steps=np.int64(5), loss__alpha=np.float32(0.5)))
    assert (config.train.steps, config.loss.alpha) == (5, 0.5)
    assert type(config.train.steps) is int and type(config.loss.alpha) is float


def test_none_is_no_value_of_other_fields():
    """ml_collections takes None for a value of any type."""
    with pytest.raises(ConfigError) as caught:
        load_config("shapes", seed=None, model__backbone_levels=None, train__batch_size=None)
    assert str(caught.value).splitlines() == [
        "config.seed: None is invalid; write 0, for example",
        "config.model.backbone_levels: None is invalid; write (3, 4, 5), for example",
        "config.train.batch_size: None is invalid; write a whole number or 'auto'",
    ]
    with pytest.raises(ConfigError, match="shapes: None is invalid; write its fields"):
        load_config("shapes", data__shapes=None)


def test_all_errors_are_listed():
    with pytest.raises(ConfigError) as error:
        from_config_dict(changed(loss__gamma=-1.0, train__steps=0))
    assert len(str(error.value).splitlines()) == 2


def test_an_unknown_field_names_the_closest_one():
    tree = changed().unlock()
    tree.model.backbon = "resnet18"
    with pytest.raises(ConfigError, match=r"config\.model\.backbon: .* did you mean backbone\?"):
        from_config_dict(tree)
    assert "did you mean learning_rate?" in explain_unknown_field("optimizer.learning_rat")
    assert "is a value, not a section" in explain_unknown_field("seed.x")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("train.steps", "; did you mean --config.train.steps?"),
        ("steps", "; did you mean --config.train.steps?"),
        ("learning_rat", "; did you mean --config.optimizer.learning_rate?"),
        ("workdri", "; did you mean --workdir?"),
        ("config.train.steps", "; set --config=EXPERIMENT as well"),
        ("zzz", ""),
    ],
)
def test_an_unknown_flag_names_the_closest_one(name, meant):
    assert explain_flag(name, ("workdir", "mode")) == meant


def test_a_stored_config_may_lack_fields_but_not_have_unknown_ones():
    values = json.loads(to_json(from_config_dict(changed(train__steps=5000))))
    del values["mesh"], values["train"]["max_skipped"]
    assert from_json(json.dumps(values)) == from_config_dict(changed(train__steps=5000))
    values["train"]["max_skippd"] = 3
    with pytest.raises(ConfigError, match=r"config\.train\.max_skippd: no such field"):
        from_json(json.dumps(values))


DAMAGED = (
    "",
    "[1]",
    '{"train": 1}',
    '{"train": {"steps": "1_0"}}',
    '{"loss": {"box_weight": [1]}}',
    '{"model": {"backbone_levels": [3, "4"]}}',
)


HUGE = (
    "[" * 100_000,
    f'{{"anchors": {{"size": {10**400}}}}}',
    f'{{"optimizer": {{"ema_decay": {10**400}}}}}',
)


@pytest.mark.parametrize("text", [*DAMAGED, *HUGE])
def test_a_damaged_stored_config_is_an_error_that_names_its_file(text, tmp_path):
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.json: "):
        read_config_file(tmp_path / "config.json")


def test_a_config_stored_before_the_words_opens():
    """The file is config.json of experiments/folder.py:small as an earlier version wrote it, with
    alpha, crowds, clipping and evaluations switched off by numbers."""
    text = STORED.read_text(encoding="utf-8")
    stored, found = json.loads(text), json.loads(to_json(from_json(text)))
    evaluation = stored["evaluation"]
    evaluation["example_images"] = evaluation.pop("pictures")
    evaluation["example_min_score"] = evaluation.pop("picture_score")
    assert (evaluation["example_images"], evaluation["example_min_score"]) == (3, 0.3)
    off = ["model.pretrained", "loss.hard_examples", "loss.negatives_per_positive"]
    off += ["optimizer.gradient_clip", "train.evaluate_every"]
    for section, values in stored.items():
        for field, value in values.items() if isinstance(values, dict) else ():
            expected = None if f"{section}.{field}" in off else value
            now = found[section][field]
            assert now == ({**now, **value} if isinstance(value, dict) else expected), field
    assert found["loss"]["alpha"] is None and found["matching"]["crowd_ioa"] is None


def test_the_folder_experiment_fits_the_device(monkeypatch):
    assert load_experiment("folder").model.backbone == "resnet18"  # a CPU
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")  # one of several processes: JAX is not asked
    monkeypatch.setattr(accelerator.jax, "default_backend", lambda: pytest.fail("JAX started"))
    assert load_experiment("folder").model.backbone == "resnet50"
    monkeypatch.delenv("OMPI_COMM_WORLD_SIZE")
    monkeypatch.setattr(accelerator.jax, "default_backend", lambda: "tpu")
    assert load_experiment("folder").model.backbone == "resnet50"


def test_missing_experiment_and_unknown_variant():
    with pytest.raises(ConfigError, match=r"no such file: nowhere\.py"):
        load_experiment("nowhere.py")
    with pytest.raises(ConfigError, match="variant 'huge' is not one of '', 'tiny'"):
        load_experiment(f"{EXPERIMENTS / 'shapes.py'}:huge")


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("64", "is not HEIGHTxWIDTH in pixels; write e.g. 64x96"),
        ("0x64", "is not HEIGHTxWIDTH"),
        ("64x-32", "is not HEIGHTxWIDTH"),
        ("70x64", "multiples of 32 .* write 96x64"),
    ],
)
def test_an_invalid_canvas_names_the_fix(text, fix):
    settings = PipelineConfig(min_side=64, max_side=96)
    assert read_canvas("96x064", settings) == (96, 64)
    with pytest.raises(ConfigError, match=f"--canvas={text}: .*{fix}"):
        read_canvas(text, settings)
