"""Real exports train from `--config=folder:small --config.data.root=FOLDER`."""

import pytest

from retinanet_jax.config.experiment_files import load_experiment
from retinanet_jax.config.settings import from_config_dict
from retinanet_jax.training.run import train_and_evaluate

# For speed alone: a few steps at low resolution, from random weights.
FASTER = {
    "train.steps": 2,
    "train.checkpoint_every": 2,
    "optimizer.warmup_steps": 0,
    "pipeline.min_side": 64,
    "pipeline.max_side": 64,
    "model.fpn_channels": 32,
    "model.head_channels": 32,
    "model.head_depth": 1,
    "model.pretrained": "none",
}


@pytest.mark.extended
@pytest.mark.parametrize("name", ["roboflow_coco", "voc_xml"])
def test_a_real_export_trains(shared_dir, tmp_path, name, capfd):
    root = shared_dir / "layouts" / name
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    config = load_experiment("folder:small")
    config.data.root, config.data.cache_dir = str(root), str(tmp_path / "cache")
    config.update_from_flattened_dict(FASTER)
    found = train_and_evaluate(from_config_dict(config), tmp_path / "run")
    assert found.summary
    assert "splits on disk: " in capfd.readouterr().out
