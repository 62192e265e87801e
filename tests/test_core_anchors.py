"""Anchors: torchvision's golden grids, Detectron2's by arithmetic, orders, centres, bad fields."""

import re

import numpy as np
import pytest

from retinanet_jax.core.anchors import AnchorConfig, anchors_for_image, cell_anchors, feature_shapes

TORCHVISION = AnchorConfig(order="ratio_major", rounding="torchvision", strides="grid")


@pytest.fixture(scope="module")
def golden(golden_dir):
    with np.load(golden_dir / "units.npz") as units:
        return {key: units[key] for key in units.files if key.startswith("anchors/")}


# Golden values from torchvision.


def test_cells_equal_torchvision(golden):
    cells = golden["anchors/cell"]
    assert len(cells) == len(TORCHVISION.levels)
    for level, cell in zip(TORCHVISION.levels, cells, strict=True):
        np.testing.assert_array_equal(cell_anchors(level, TORCHVISION), cell)


def test_grids_equal_torchvision(golden):
    sizes = [m for m in (re.fullmatch(r"anchors/(\d+)x(\d+)/grid", key) for key in golden) if m]
    assert sizes, "no golden grid"
    for match in sizes:
        size = (int(match[1]), int(match[2]))
        prefix = match[0].removesuffix("grid")
        assert feature_shapes(size, TORCHVISION) == [tuple(row) for row in golden[match[0]]]
        anchors = np.concatenate(anchors_for_image(size, TORCHVISION))
        assert anchors.shape == tuple(golden[prefix + "shape"])
        step = int(golden[prefix + "step"])
        np.testing.assert_array_equal(anchors[::step], golden[prefix + "rows"])
        total = anchors.astype(np.float64)
        np.testing.assert_allclose(total.sum(0), golden[prefix + "sum64"], rtol=1e-9, atol=1e-3)
        np.testing.assert_allclose(abs(total).sum(0), golden[prefix + "abssum64"], rtol=1e-9)


def test_all_anchors_of_a_batch_equal_torchvision(golden_dir):
    with np.load(golden_dir / "v1.npz") as v1:
        size = tuple(int(n) for n in v1["eval/batch/shape"][-2:])
        anchors = anchors_for_image(size, TORCHVISION)
        assert [len(level) for level in anchors] == v1["eval/num_anchors_per_level"].tolist()
        np.testing.assert_array_equal(np.concatenate(anchors), v1["eval/anchors"])


# Arithmetic by hand.


def test_cell_by_hand():
    config = AnchorConfig(scales=(1, 2), ratios=(0.25, 1, 4))
    # Side 32: ratio 1/4 is 64 wide and 16 high, 4 is 16 wide and 64 high; then side 64.
    expected = [
        [-32, -8, 32, 8],
        [-16, -16, 16, 16],
        [-8, -32, 8, 32],
        [-64, -16, 64, 16],
        [-32, -32, 32, 32],
        [-16, -64, 16, 64],
    ]
    np.testing.assert_allclose(cell_anchors(3, config), expected)
    turned = AnchorConfig(scales=(1, 2), ratios=(0.25, 1, 4), order="ratio_major")
    np.testing.assert_allclose(cell_anchors(3, turned), np.array(expected)[[0, 3, 1, 4, 2, 5]])


def test_detectron_rounds_the_sides_of_one_stride():
    """Faster R-CNN's anchors, as generate_anchors.py lists them: -83 -39 100 56 and so on, with the
    last pixel in the box: 184 x 96, 128 x 128 and 88 x 176, twice and four times that."""
    config = AnchorConfig(size=8, scales=(1, 2, 4), rounding="detectron", order="ratio_major")
    found = cell_anchors(4, config)
    sides = np.float32([[184, 96], [128, 128], [88, 176]])
    sides = (sides[:, None] * np.float32([1, 2, 4])[:, None]).reshape(-1, 2)
    np.testing.assert_array_equal(found, np.concatenate([-sides, sides], axis=1) / 2)
    # 45 * .5 is half way between 22 and 23, and numpy rounds to the even one.
    (wide, *_) = cell_anchors(5, AnchorConfig(size=4, rounding="detectron"))
    np.testing.assert_array_equal(wide, [-90, -44, 90, 44])


def test_height_outermost_then_width():
    config = AnchorConfig(max_level=3, scales=(1,), ratios=(1,))
    (anchors,) = anchors_for_image((16, 24), config)
    # Stride 8, half a side 16: centres (0, 0), (8, 0), (16, 0), then the next row.
    np.testing.assert_array_equal(anchors[:, 0], [-16, -8, 0, -16, -8, 0])
    np.testing.assert_array_equal(anchors[:, 1], [-16, -16, -16, -8, -8, -8])


def test_centre_moves_by_strides():
    corner = anchors_for_image((128, 192), AnchorConfig())
    middle = anchors_for_image((128, 192), AnchorConfig(center=0.5))
    for level, before, after in zip(AnchorConfig().levels, corner, middle, strict=True):
        np.testing.assert_allclose(after - before, 2**level / 2, atol=1e-4)


def test_strides_of_a_ragged_grid():
    # 800x1344 halves to 7x11 on P7: torchvision's stride is 114 and 122, the others' 128.
    grid = AnchorConfig(min_level=7, scales=(1,), ratios=(1,), strides="grid")
    (by_grid,) = anchors_for_image((800, 1344), grid)
    (by_power,) = anchors_for_image(
        (800, 1344), AnchorConfig(min_level=7, scales=(1,), ratios=(1,))
    )
    assert len(by_grid) == len(by_power) == 7 * 11
    np.testing.assert_array_equal(by_grid[12] - by_grid[0], [122, 114, 122, 114])
    np.testing.assert_array_equal(by_power[12] - by_power[0], [128] * 4)


@pytest.mark.parametrize(
    "size, total", [((800, 800), 120_087), ((800, 1344), 201_600), ((640, 640), 76_725)]
)
def test_published_counts(size, total):
    levels = anchors_for_image(size, AnchorConfig())
    assert sum(map(len, levels)) == total
    assert all(level.dtype == np.float32 for level in levels)


def test_shapes_halve_and_round_up():
    assert feature_shapes((333, 201), AnchorConfig()) == [
        (42, 26),
        (21, 13),
        (11, 7),
        (6, 4),
        (3, 2),
    ]
    assert feature_shapes((1, 1), AnchorConfig()) == [(1, 1)] * 5
    with pytest.raises(ValueError, match="image_size"):
        feature_shapes((0, 32), AnchorConfig())


@pytest.mark.parametrize(
    "field, value, says",
    [
        ("order", "foo", "scale_major, ratio_major"),
        ("rounding", "up", "none, torchvision, detectron"),
        ("strides", "odd", "power_of_two, grid"),
        ("min_level", 8, "between 0"),
        ("scales", (), "positive"),
        ("ratios", (1.0, -1.0), "positive"),
        ("size", 0.0, "positive"),
        ("center", float("nan"), "finite"),
    ],
)
def test_bad_fields_say_what_to_write(field, value, says):
    with pytest.raises(ValueError, match=rf"anchors\.{field}.*{says}"):
        AnchorConfig(**{field: value})
