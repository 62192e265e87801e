"""pipeline.max_boxes='auto': room for the fullest training image."""

import dataclasses

import pytest
from memory_data import memory_dataset, objects_of
from small import small_config

from retinanet_jax.config.settings import from_json, to_json
from retinanet_jax.training.max_boxes import with_least_max_boxes, with_max_boxes

BOX = [8, 8, 56, 56]


def images(*counts: int):
    return memory_dataset([objects_of([BOX] * count) for count in counts])


def auto():
    return small_config(pipeline__max_boxes="auto")


@pytest.mark.parametrize(
    ("counts", "number"), [((3, 0), 100), ((1, 0, 123, 7), 123), ((0, 0), 100)]
)
def test_the_fullest_image_fits(counts, number):
    config = with_max_boxes(auto(), images(*counts))
    assert config.pipeline.max_boxes == number
    assert from_json(to_json(config)) == config


def test_a_number_stays_and_a_resumed_run_keeps_its_own(tmp_path):
    assert with_max_boxes(small_config(pipeline__max_boxes=7), images(9)).pipeline.max_boxes == 7
    stored = dataclasses.replace(small_config().pipeline, max_boxes=150)
    text = to_json(dataclasses.replace(small_config(), pipeline=stored))
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    assert with_max_boxes(auto(), images(200), tmp_path).pipeline.max_boxes == 150
    assert with_least_max_boxes(auto()).pipeline.max_boxes == 100
