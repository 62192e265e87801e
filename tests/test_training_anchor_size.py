"""anchors.size='auto': the size that a run chooses by its training boxes."""

import dataclasses

import pytest
from memory_data import memory_dataset, objects_of
from small import small_config

from retinanet_jax.config.settings import from_json, to_json
from retinanet_jax.core.anchors import anchors_for_image
from retinanet_jax.training.anchor_size import with_anchor_size, with_any_anchor_size

LARGE, MIDDLE, SMALL = [8, 8, 56, 56], [16, 16, 36, 36], [20, 20, 32, 32]


def auto():
    return small_config(anchors__size="auto", pipeline__min_side=64, pipeline__max_side=64)


def chosen(*boxes) -> float:
    config, message = with_anchor_size(auto(), memory_dataset([objects_of(boxes)]))
    assert message.startswith(f"anchors of {config.anchors.size:g} strides: ")
    return config.anchors.size


def test_the_largest_size_that_covers_the_boxes():
    # The smallest anchors of 4, 3 and 2 strides have sides of 32, 24 and 16 pixels: a box of 20
    # pixels has an IoU of .39 with 32 and .69 with 24, one of 12 pixels .25 with 24.
    assert chosen(LARGE) == 4
    assert chosen(LARGE, MIDDLE) == 3
    assert chosen(LARGE, SMALL) == 2


def test_one_percent_of_the_boxes_may_stay_uncovered():
    assert chosen(*[LARGE] * 99, SMALL) == 4
    assert chosen(*[LARGE] * 98, SMALL) == 2


def test_crowds_do_not_count():
    objects = objects_of([LARGE, SMALL], crowd=[False, True])
    config, _ = with_anchor_size(auto(), memory_dataset([objects]))
    assert config.anchors.size == 4


def test_crowds_alone_leave_the_paper_s_size():
    objects = objects_of([LARGE], crowd=[True])
    config, message = with_anchor_size(auto(), memory_dataset([objects]))
    assert config.anchors.size == 4 and "0.0% of the training boxes" in message


def test_where_no_size_suffices_the_fewest_stay_uncovered():
    tiny = [20, 20, 23, 23]
    assert chosen(*[LARGE] * 10, *[MIDDLE] * 10, tiny) == 3
    assert chosen(tiny, tiny) == 4  # of equals the first


def test_a_number_stays_and_a_resumed_run_keeps_its_own(tmp_path):
    data = memory_dataset([objects_of([SMALL])])
    config = small_config()
    assert with_anchor_size(config, data) == (config, "")
    stored = dataclasses.replace(config.anchors, size=2.5)
    (tmp_path / "config.json").write_text(
        to_json(dataclasses.replace(config, anchors=stored)), encoding="utf-8"
    )
    config, message = with_anchor_size(auto(), data, tmp_path)
    assert (config.anchors.size, message) == (2.5, "")
    assert from_json(to_json(config)) == config


def test_auto_is_no_number():
    with pytest.raises(ValueError, match=r"anchors\.size: 'auto' becomes a number when a run"):
        anchors_for_image((64, 64), auto().anchors)
    assert with_any_anchor_size(auto()).anchors.size == 4
