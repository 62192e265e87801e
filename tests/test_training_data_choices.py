"""The fields that the training set decides, together."""

from memory_data import memory_dataset, objects_of
from small import small_config

from retinanet_jax.training.data_choices import with_data_choices, without_data_choices


def test_every_auto_becomes_a_number():
    config = small_config(
        anchors__size="auto",
        pipeline__max_boxes="auto",
        pipeline__min_side=64,
        pipeline__max_side=64,
    )
    # Boxes of 12 pixels need anchors of 2 strides (16 pixels).
    data = memory_dataset([objects_of([[20, 20, 32, 32]] * 130)])
    chosen, line = with_data_choices(config, data)
    assert (chosen.anchors.size, chosen.pipeline.max_boxes) == (2.0, 130)
    assert line.startswith("anchors of 2 strides")
    assert with_data_choices(chosen, data) == (chosen, "")
    planned = without_data_choices(config)
    assert (planned.anchors.size, planned.pipeline.max_boxes) == (4.0, 100)
