"""The configuration: every experiment builds, nothing unknown or impossible passes."""

import dataclasses
import json
from pathlib import Path

import pytest

from retinanet_jax.config.experiment_files import (
    explain_flag,
    explain_unknown_field,
    load_experiment,
)
from retinanet_jax.config.recipes import RECIPES
from retinanet_jax.config.settings import (
    Config,
    ConfigError,
    default_config,
    from_config_dict,
    from_json,
    to_json,
)

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
VARIANTS = {
    "shapes": ("", "tiny"),
    "folder": ("", "small"),
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
    tree.model.norm = "batch"
    tree.model.frozen_stages = 0
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
        text = (EXPERIMENTS / f"{name}.py").read_text()
        assert f"--config=experiments/{name}.py" in text.split('"""')[1]


def test_defaults_survive_the_way_through_the_config_dict():
    config = from_config_dict(changed(model__pretrained="x", model__norm="frozen_batch"))
    expected = Config()
    model = dataclasses.replace(expected.model, pretrained="x", frozen_stages=0)
    assert config == dataclasses.replace(expected, model=model)


def test_alpha_is_switched_off_by_a_negative_number():
    assert from_config_dict(changed(loss__alpha=-1.0)).loss.alpha is None
    assert from_config_dict(changed(matching__crowd_ioa=-1.0)).matching.crowd_ioa is None


def test_anchors_take_their_levels_from_the_model():
    config = from_config_dict(changed(model__backbone_levels=(3, 4), model__max_level=6))
    assert (config.anchors.min_level, config.anchors.max_level) == (3, 6)


@pytest.mark.parametrize(
    ("pretrained", "norm", "frozen"), [("", "batch", 0), ("w.npz", "frozen_batch", 2)]
)
def test_auto_freezes_only_pretrained_weights(pretrained, norm, frozen):
    config = from_config_dict(
        changed(model__norm="auto", model__frozen_stages=-2, model__pretrained=pretrained)
    )
    assert (config.model.norm, config.model.frozen_stages) == (norm, frozen)


@pytest.mark.parametrize(("pretrained", "factor"), [("w", 0.1), ("", 1.0)])
def test_a_negative_factor_spares_pretrained_weights_only(pretrained, factor):
    fields = {"optimizer__backbone_factor": -0.1, "model__pretrained": pretrained}
    assert from_config_dict(changed(**fields)).optimizer.backbone_factor == factor


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"model__backbone": "resnet49"}, "config.model.backbone: 'resnet49' is not one of resnet"),
        ({"model__frozen_stages": 2}, "config.model.frozen_stages: 2 would freeze random weights"),
        ({"model__norm": "frozen_batch"}, "without config.model.pretrained"),
        ({"train__steps": 0}, "config.train.steps: 0 must be at least 1"),
        ({"optimizer__warmup_steps": 10**6}, "config.optimizer.warmup_steps: 1000000 is not less"),
        ({"optimizer__accumulate_steps": 3}, "does not divide config.train.batch_size, 16"),
        ({"data__name": "folder"}, "config.data.root: is empty"),
        ({"data__name": "imagenet"}, "config.data.name: 'imagenet' is not one of shapes, folder"),
        ({"pipeline__max_side": 10}, "config.pipeline.max_side: 10"),
        ({"loss__gamma": -1.0}, "config.loss.gamma"),
        ({"data__shapes__max_objects": 0}, "config.data.shapes.max_objects: 0 is not 1 to 100"),
        ({"augmentation__mosaic": 2.0}, "config.augmentation.mosaic: 2.0 is not 0 to 1"),
        (
            {"augmentation__scales": (640, 1400)},
            "config.augmentation.scales: (640, 1400) is not at most pipeline.max_side, 1333",
        ),
    ],
)
def test_impossible_values_say_what_to_write(fields, says):
    with pytest.raises(ConfigError) as error:
        from_config_dict(changed(**fields))
    assert says in str(error.value)


def test_all_errors_are_told_at_once():
    with pytest.raises(ConfigError) as error:
        from_config_dict(changed(loss__gamma=-1.0, train__steps=0))
    assert len(str(error.value).splitlines()) == 2


def test_unknown_fields_are_refused_with_the_nearest_name():
    tree = changed().unlock()
    tree.model.backbon = "resnet18"
    with pytest.raises(ConfigError, match=r"config\.model\.backbon: .* did you mean backbone\?"):
        from_config_dict(tree)
    assert "did you mean learning_rate?" in explain_unknown_field("optimizer.learning_rat")
    assert "is a value and has no field" in explain_unknown_field("seed.x")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("train.steps", "; did you mean --config.train.steps?"),
        ("steps", "; did you mean --config.train.steps?"),
        ("learning_rat", "; did you mean --config.optimizer.learning_rate?"),
        ("workdri", "; did you mean --workdir?"),
        ("config.train.steps", "; set --config=EXPERIMENT before its fields"),
        ("zzz", ""),
    ],
)
def test_what_was_meant_by_a_flag_is_told(name, meant):
    assert explain_flag(name, ("workdir", "mode")) == meant


def test_the_config_of_an_earlier_version_opens_and_that_of_a_later_one_says_why_not():
    values = json.loads(to_json(from_config_dict(changed(train__steps=5000))))
    del values["mesh"], values["train"]["max_skipped"]
    assert from_json(json.dumps(values)) == from_config_dict(changed(train__steps=5000))
    values["train"]["max_skippd"] = 3
    with pytest.raises(ConfigError, match=r"config\.train\.max_skippd: there is no such field"):
        from_json(json.dumps(values))


def test_missing_experiment_and_unknown_variant():
    with pytest.raises(ConfigError, match=r"there is no file nowhere\.py"):
        load_experiment("nowhere.py")
    with pytest.raises(ConfigError, match="variant 'huge' is not one of '', 'tiny'"):
        load_experiment(f"{EXPERIMENTS / 'shapes.py'}:huge")
