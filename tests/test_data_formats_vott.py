"""VoTT: exports and files of projects, tags, images that nobody opened, videos, names."""

import json

import pytest
from data_settings import data_settings
from layout_writers import (
    SMALL,
    Annotated,
    Box,
    vott_asset,
    vott_json,
    write_coco,
    write_image,
    write_vott,
)
from raw_reading import boxes, expected, read, reasons

from retinanet_jax.data.annotations.split_content import NO_BOX, OUTLINE
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.formats import vott
from retinanet_jax.data.formats.find_layout import FINDERS, find_layout

BOX = Box("cat", 4, 6, 20, 12)
IMAGE = Annotated("a.png", 64, 48, (BOX,))


@pytest.fixture
def folder(tmp_path):
    """A function that writes vott-json-export/ with a.png and the export of some assets."""

    def write(*assets, newline="\n", **fields):
        content = vott_json([IMAGE]) | fields
        content["assets"] = {f"id{number}": asset for number, asset in enumerate(assets)}
        write_image(tmp_path / "vott-json-export", IMAGE)
        path = tmp_path / "vott-json-export/pets-export.json"
        path.write_text(json.dumps(content, indent=4), encoding="utf-8", newline=newline)
        return tmp_path

    return write


def asset(**region) -> dict:
    """a.png with one region."""
    found = vott_asset(IMAGE)
    found["regions"][0] |= region
    return found


def other(name: str, **fields) -> dict:
    """An image without regions."""
    found = vott_asset(Annotated(name, 64, 48))
    found["asset"] |= fields
    return found


def test_each_split_is_read(tmp_path):
    write_vott(tmp_path, SMALL)
    layout = find_layout(tmp_path).layout
    assert (layout.name, layout.tool, set(layout.splits)) == ("vott", "VoTT", {"train", "val"})
    for split, images in SMALL.items():
        content = read(vott.find, tmp_path, split)
        assert boxes(content) == expected(SMALL, split) and not content.notes
        assert [image.size for image in content.images] == [(i.height, i.width) for i in images]


def test_the_records_of_an_export_are_in_pixels(folder, tmp_path):
    root = folder(asset(), other("empty.png"), newline="\r\n")
    write_image(root / "vott-json-export", Annotated("empty.png", 64, 48))
    settings = data_settings("folder", root, tmp_path / "cache", val_share=0.0)
    truth = load_dataset(settings, "train").ground_truth()
    assert [a["bbox"] for a in truth["annotations"]] == [[4, 6, 20, 12]]
    assert len(truth["images"]) == 2


def test_exports_in_split_folders_are_one_dataset(tmp_path):
    write_vott(tmp_path, SMALL)
    for split in SMALL:
        (tmp_path / split).rename(tmp_path / "inner")
        (tmp_path / split).mkdir()
        (tmp_path / "inner").rename(tmp_path / split / "vott-json-export")
    layout = find_layout(tmp_path).layout
    assert set(layout.splits) == {"train", "val"}
    assert boxes(read(lambda _: layout, tmp_path, "val")) == expected(SMALL, "val")


@pytest.mark.parametrize("count", [1, 30])
def test_the_files_of_a_project_are_read_without_an_export(tmp_path, count):
    for number in range(count):
        image = IMAGE._replace(file_name=f"{number}.png")
        write_image(tmp_path / "images", image)
        path = tmp_path / f"project/{number:032x}-asset.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(vott_asset(image)), encoding="utf-8")
    (tmp_path / "project/pets.vott").write_text("{}", encoding="utf-8")
    assert [name for name, find in FINDERS.items() if find(tmp_path) is not None] == ["vott"]
    content = read(vott.find, tmp_path)
    assert boxes(content) == {f"{number}.png": [tuple(BOX)] for number in range(count)}


def test_a_region_with_several_tags_is_an_object_of_each(folder):
    root = folder(asset(tags=["cat", "pet", "cat"]))
    found = read(vott.find, root)
    assert boxes(found) == {"a.png": [("cat", *BOX[1:]), ("pet", *BOX[1:])]}
    assert found.class_names is None  # 'pet' is not among the tags of the project


def test_the_tags_of_the_project_are_the_classes_in_their_order(folder):
    root = folder(asset(), tags=[{"name": "dog", "color": "#fff"}, {"name": "cat"}])
    assert read(vott.find, root).class_names == ("dog", "cat")


def test_images_that_nobody_opened_and_videos_are_left_out_and_noted(folder):
    video = other("b.mp4", type=2, state=1)
    root = folder(asset(), other("c.png", state=0), video)
    content = read(vott.find, root)
    assert boxes(content) == {"a.png": [tuple(BOX)]}
    assert reasons(content) == {vott.NOT_VISITED: 1, vott.VIDEO: 1}


def test_polygons_have_their_bounding_box_and_points_have_none(folder):
    points = [{"x": 4, "y": 6}, {"x": 24, "y": 6}, {"x": 24, "y": 18}]
    polygon = asset(type="POLYGON", boundingBox=None, points=points)
    content = read(vott.find, folder(polygon))
    assert boxes(content) == {"a.png": [tuple(BOX)]} and reasons(content) == {OUTLINE: 1}
    content = read(vott.find, folder(asset(type="POINT", boundingBox=None, points=points[:1])))
    assert boxes(content) == {"a.png": []} and reasons(content) == {NO_BOX: 1}


@pytest.mark.parametrize("name", ["a%20b.png", "a b.png"])
def test_the_image_is_found_by_its_quoted_or_plain_name(folder, name):
    found = vott_asset(IMAGE)
    found["asset"] |= {"name": name, "path": f"https://x.blob.core.example/pets/{name}?sv=2&sig=3"}
    root = folder(found)
    path = write_image(root / "images", IMAGE._replace(file_name="a b.png"))
    assert read(vott.find, root).images[0].path == path


def test_the_path_decides_between_images_of_one_name(folder):
    assets = []
    root = folder()
    for place in ("one", "two"):
        write_image(root / place, IMAGE._replace(width=60 if place == "one" else 62))
        found = vott_asset(IMAGE)
        found["asset"]["path"] = f"file:/home/me/{place}/a.png"
        assets.append(found)
    root = folder(*assets)
    (root / "vott-json-export/a.png").unlink()
    paths = [image.path for image in read(vott.find, root).images]
    assert paths == [root / "one/a.png", root / "two/a.png"]


def test_a_missing_image_and_a_wrong_size_are_errors_of_the_asset(folder, tmp_path):
    settings = data_settings("folder", tmp_path, tmp_path / "cache", val_share=0.0)
    folder(asset(), other("b.png"))
    with pytest.raises(DataError, match=r"pets-export\.json: asset 'b\.png': .*b\.png"):
        load_dataset(settings, "train")
    wrong = asset()
    wrong["asset"]["size"] = {"width": 128, "height": 96}
    folder(wrong)
    with pytest.raises(DataError, match=r"asset 'a\.png': height x width is 96 x 128, but"):
        load_dataset(settings, "train")


def test_a_conversion_to_coco_is_preferred(folder):
    root = folder(asset())
    write_coco(root, SMALL)
    assert find_layout(root).layout.name == "coco"
    assert find_layout(root, "vott").layout.name == "vott"


@pytest.mark.parametrize(
    "region, message",
    [
        ({"tags": []}, "region 0: tags is []; give the region a tag, or delete it"),
        ({"tags": [""]}, "region 0: the class is ''"),
        ({"boundingBox": {"left": 3}}, "region 0: boundingBox: is {'left': 3}; write numbers for"),
        ({"boundingBox": None, "points": []}, "region 0: points is []"),
    ],
)
def test_a_bad_region_is_an_error_that_names_it(folder, region, message):
    bad = asset(**region)
    bad["regions"].append(vott_asset(IMAGE)["regions"][0])
    root = folder(bad)
    with pytest.raises(DataError) as error:
        read(vott.find, root)
    assert message in str(error.value) and "pets-export.json: asset 'a.png'" in str(error.value)
    assert boxes(read(vott.find, root, on_error="skip")) == {"a.png": [tuple(BOX)]}


@pytest.mark.parametrize(
    "bad, message",
    [
        (3, "asset 'id1': is 3"),
        ({"regions": []}, "asset 'id1': has no field 'asset'"),
        ({"asset": {"name": ""}, "regions": []}, "asset 'id1': name is ''"),
        ({"asset": {"name": "b.png"}, "regions": 3}, "asset 'b.png': regions is 3"),
    ],
)
def test_a_bad_asset_is_an_error_that_names_it(folder, bad, message):
    root = folder(asset(), bad)
    with pytest.raises(DataError) as error:
        read(vott.find, root)
    assert message in str(error.value) and "pets-export.json" in str(error.value)
    assert len(read(vott.find, root, on_error="skip").images) == 1
