"""The lines before the first step: settings without effect, stages that are frozen."""

from small import small_config

from retinanet_jax.training.run import train_and_evaluate


def test_a_setting_without_effect_and_no_frozen_stage_are_logged(tmp_path, capsys):
    fields = {"train__steps": 2, "train__profile_steps": (2, 100)}
    config = small_config(**fields, loss__classification="cross_entropy", loss__gamma=5.0)
    train_and_evaluate(config, tmp_path)
    found = capsys.readouterr().out
    line = "config.loss.gamma=5.0 has no effect: loss.classification is cross_entropy"
    assert " ".join(found.split()).count(line) == 1
    assert " 0 frozen stages" in " ".join(found.split())
    assert "trace of steps 2 to 2: " in " ".join(found.split())
