"""The paper's tables as data: every trial builds and is another one; numbers are the paper's."""

import numpy as np
import pytest

from retinanet_jax.config.paper_base import base_config
from retinanet_jax.config.paper_tables import TABLES
from retinanet_jax.config.settings import ConfigError, from_config_dict

TRIALS = [(name, variant) for name in TABLES for variant in ("", "small")]


def trials(table, variant):
    for row in TABLES[table].rows:
        config = base_config(table, variant)
        config.update_from_flattened_dict(row.settings_of(variant))
        yield row, from_config_dict(config)


@pytest.mark.parametrize(("table", "variant"), TRIALS)
def test_every_trial_builds_and_is_another_one(table, variant):
    rows, configs = zip(*trials(table, variant), strict=True)
    assert len({row.name for row in rows}) == len(rows) == len(set(configs))
    data = {config.data.name for config in configs}
    assert data == ({"shapes"} if variant == "small" else {"coco"})


@pytest.mark.parametrize("table", list(TABLES))
def test_the_base_is_one_of_the_trials(table):
    base = from_config_dict(base_config(table))
    assert base in [config for _, config in trials(table, "")]


def test_the_setting_is_the_papers():
    for table in TABLES:
        config = from_config_dict(base_config(table))
        assert (config.optimizer.learning_rate, config.train.batch_size) == (0.01, 16)
        assert (config.loss.box, config.loss.normalizer) == ("smooth_l1", "batch")
        assert config.pipeline.min_side == (800 if table == "2" else 600)
        assert config.train.steps == (135_000 if table == "2" else 90_000)
        assert config.model.backbone == ("resnet101" if table in ("1d", "2") else "resnet50")


def test_numbers_are_the_papers():
    """Sums of the columns AP, AP50, AP75, from a transcript of the tables of its own."""
    sums = {
        "1a": (156.7, 250.9, 165.8),
        "1b": (227.2, 355.8, 242.2),
        "1c": (228.4, 358.4, 242.6),
        "1d": (304.3, 462.7, 325.0),
        "2": (79.9, 120.2, 86.4),
        "3": (132.8, 206.4, 142.2),
    }
    for table, expected in sums.items():
        numbers = [(row.ap, row.ap50, row.ap75) for row in TABLES[table].rows]
        np.testing.assert_allclose(np.sum(numbers, axis=0), expected, err_msg=table)
    assert sum(row.ap for row in TABLES["1e"].rows) == pytest.approx(345.3)
    assert sum(row.also["ms"] for row in TABLES["1e"].rows) == 1153
    assert [row.ap for row in TABLES["prior"].rows] == [None, 30.2]


def test_more_accuracy_takes_more_time():
    for depth in ("50", "101"):
        rows = [row for row in TABLES["1e"].rows if f"ResNet-{depth}," in row.name]
        assert len(rows) == 5
        for column in ([row.ap for row in rows], [row.also["ms"] for row in rows]):
            assert column == sorted(column)


def test_anchors_of_table_1c():
    shapes = {
        row.name: (config.anchors.anchors_per_location, max(config.anchors.scales))
        for row, config in trials("1c", "")
    }
    assert shapes["1 scale, 1 ratio"] == (1, 1.0)
    assert shapes["3 scales, 3 ratios"] == (9, 2 ** (2 / 3))
    assert shapes["4 scales, 3 ratios"] == (12, 2**0.75)


def test_unknown_tables_and_variants_are_named():
    with pytest.raises(ConfigError, match="table '4' is not one of 1a, 1b"):
        base_config("4")
    with pytest.raises(ConfigError, match="variant 'tiny' is not one of '', 'small'"):
        base_config("1a", "tiny")
