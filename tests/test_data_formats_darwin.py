"""V7's Darwin JSON: both versions, shapes, slots, the folders of darwin-py, lists, errors."""

import json
import math
import shutil

import pytest
from layout_writers import (
    SMALL,
    Annotated,
    Box,
    darwin_box,
    darwin_json,
    write_darwin,
    write_image,
)
from raw_reading import boxes, expected, read, reasons

from retinanet_jax.data.annotations.split_content import NO_BOX, OUTLINE
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats import darwin, darwin_lists, darwin_shapes
from retinanet_jax.data.formats.find_layout import find_layout

IMAGE = Annotated("a.png", 64, 48, (Box("traffic light", 4, 6, 20, 12),))


@pytest.fixture
def folder(tmp_path):
    """A function that writes annotations/a.json and images/a.png."""

    def write(content, name="a.json", image="a.png"):
        write_image(tmp_path / "images", IMAGE._replace(file_name=image))
        path = tmp_path / "annotations" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
        return tmp_path

    return write


def shape(**fields) -> dict:
    return {"id": "7", "name": "cat", "slot_names": ["0"], **fields}


def xy(*points) -> list[dict]:
    return [{"x": x, "y": y} for x, y in points]


def found_boxes(root) -> list[tuple]:
    (image,) = read(darwin.find, root).images
    return [o.box for o in image.objects]


def v1(*annotations, **fields) -> dict:
    """Darwin JSON 1.0 of a.png."""
    image = {"width": 64, "height": 48, "filename": "0.png", "original_filename": "a.png"}
    return {
        "dataset": "cells",
        "image": {**image, "path": "/", "seq": 1, **fields},
        "annotations": list(annotations),
    }


def test_a_folder_of_darwin_py_is_read(tmp_path):
    write_darwin(tmp_path, SMALL)
    layout = darwin.find(tmp_path)
    assert (layout.name, layout.splits) == ("darwin", ("train", "val"))
    assert layout.tool == "V7 Darwin JSON, as pulled by darwin-py"
    for split in SMALL:
        content = read(darwin.find, tmp_path, split)
        assert boxes(content) == expected(SMALL, split) and not content.notes
        assert [im.size for im in content.images] == [(i.height, i.width) for i in SMALL[split]]
        assert all(image.path.is_file() for image in content.images)


def test_a_folder_without_lists_is_one_split_and_folders_are_splits(tmp_path):
    write_darwin(tmp_path / "one", SMALL)
    shutil.rmtree(tmp_path / "one/releases/latest/lists")
    assert darwin.find(tmp_path / "one").splits == ("train",)
    assert len(read(darwin.find, tmp_path / "one").images) == 4
    for split, images in SMALL.items():  # as exported by V7, arranged by hand
        for image in images:
            write_image(tmp_path / "two" / split / "images", image)
            path = tmp_path / "two" / split / "annotations" / f"{image.file_name}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(darwin_json(image)), encoding="utf-8")
    assert find_layout(tmp_path / "two").layout.name == "darwin"
    for split in SMALL:
        content = read(darwin.find, tmp_path / "two", split)
        assert boxes(content) == expected(SMALL, split)
        assert all(image.path.is_file() for image in content.images)


def test_annotations_beside_the_images_and_other_json_files(folder, tmp_path):
    root = folder(darwin_json(IMAGE))
    shutil.move(root / "annotations/a.json", root / "images/a.json")
    (root / "annotations").rmdir()
    (root / "images/metadata.json").write_text('{"classes": []}', encoding="utf-8")
    assert found_boxes(root / "images") == [(4, 6, 20, 12)]
    assert find_layout(root / "images").layout.name == "darwin"


def test_version_1_is_read(folder):
    root = folder(
        v1(
            darwin_box(IMAGE.boxes[0]),
            shape(polygon={"path": xy((1, 2), (11, 4), (3, 22))}),
            shape(
                polygon={
                    "path": xy((1, 2), (11, 4)),
                    "additional_paths": [xy((9, 9), (30, 40))],
                }
            ),
        )
    )
    assert find_layout(root).layout.name == "darwin"
    assert found_boxes(root) == [(4, 6, 20, 12), (1, 2, 10, 20), (1, 2, 29, 38)]
    assert read(darwin.find, root).images[0].size == (48, 64)


def test_annotations_may_be_the_first_field_of_a_long_file(folder):
    content = darwin_json(IMAGE, *[darwin_box(IMAGE.boxes[0])] * 2000)
    root = folder(dict(sorted(content.items())))
    assert (root / "annotations/a.json").stat().st_size > 2 * darwin._HEAD
    assert len(found_boxes(root)) == 2000


def test_shapes_have_their_bounding_boxes(folder):
    ellipse = {"center": {"x": 30, "y": 20}, "radius": {"x": 10, "y": 5}}
    side = {"x": 2, "y": 3, "w": 10, "h": 12}
    root = folder(
        darwin_json(
            IMAGE,
            shape(polygon={"paths": [xy((1, 2), (11, 4)), xy((3, 22), (5, 5))]}),
            shape(ellipse=ellipse | {"angle": math.pi / 2}),
            shape(cuboid={"back": side, "front": side | {"x": 0, "h": 20}}),
            shape(simple_table={"bounding_box": side, "col_offsets": [0.5]}),
            shape(tag={}),
            shape(keypoint={"x": 1, "y": 2}),
            shape(line={"path": xy((1, 2), (3, 4))}),
            shape(skeleton={"nodes": []}),
        )
    )
    wanted = [(1, 2, 10, 20), (25, 10, 10, 20), (0, 3, 12, 20), (2, 3, 10, 12)]
    assert found_boxes(root) == [pytest.approx(box) for box in wanted]
    assert reasons(read(darwin.find, root)) == {OUTLINE: 1, NO_BOX: 1, darwin_shapes.NO_SHAPE: 1}


def test_masks_have_the_boxes_of_their_pixels(folder):
    # An image of 8x4 pixels: 1 on a rectangle, 2 from the end of a row to the next one.
    rows = ["........", ".111....", ".111...2", "2......."]
    rle = [v for row in rows for c in row for v in (0 if c == "." else int(c), 1)]
    mapping = {"m1": 1, "m2": 2, "m3": 3}
    layer = {"dense_rle": rle, "mask_annotation_ids_mapping": mapping, "total_pixels": 32}
    masks = [{"id": f"m{n}", "name": "cat", "mask": {"sparse_rle": None}} for n in (1, 2)]
    raster = {"id": "r", "name": "__raster_layer__", "raster_layer": layer}
    root = folder(darwin_json(IMAGE, *masks, raster, width=8, height=4))
    assert found_boxes(root) == [(1, 1, 3, 2), (0, 2, 8, 2)]
    assert reasons(read(darwin.find, root)) == {OUTLINE: 1}
    joined = [0, 9, 1, 3, 0, 5, 1, 3, 0, 3, 2, 2, 0, 7]  # the same with the longest runs
    raster["raster_layer"]["dense_rle"] = joined
    assert found_boxes(folder(darwin_json(IMAGE, *masks, raster, width=8, height=4))) == [
        *((1, 1, 3, 2), (0, 2, 8, 2)),
    ]
    without = masks[0] | {"id": "m3"}
    with pytest.raises(DataError, match=r"annotations\[0\]: is a mask without pixels"):
        read(darwin.find, folder(darwin_json(IMAGE, without, raster, width=8, height=4)))
    with pytest.raises(DataError, match=r"annotations\[0\]: raster_layer is .*\(48, 64\)"):
        read(darwin.find, folder(darwin_json(IMAGE, raster)))


def test_a_bad_raster_layer_is_an_error_of_its_masks_alone(folder):
    layer = {"dense_rle": "x", "mask_annotation_ids_mapping": {"m1": 1}}
    entries = [
        darwin_box(IMAGE.boxes[0]),
        {"id": "m1", "name": "cat", "mask": {}},
        {"id": "r", "name": "__raster_layer__", "raster_layer": layer},
    ]
    root = folder(darwin_json(IMAGE, *entries))
    with pytest.raises(DataError) as error:
        read(darwin.find, root)
    assert r"annotations[2]: raster_layer is" in str(error.value)
    assert r"annotations[1]: is a mask without pixels" in str(error.value)
    (image,) = read(darwin.find, root, on_error="skip").images
    assert [o.box for o in image.objects] == [(4, 6, 20, 12)]


@pytest.mark.parametrize(
    "image, item, source",
    [
        ("images/sub/a.png", {"path": "/sub"}, {}),
        ("images/a.png", {"path": "/sub"}, {}),  # pulled without folders
        ("images/a.png", {}, {"file_name": "upload.png"}),
        ("images/a.png", {"name": "a.jpg"}, {"file_name": "upload.png"}),
        ("images/upload.png", {}, {"file_name": "upload.png"}),
        ("images/what_.png", {"name": "what?.png"}, {"file_name": "x.png"}),
        ("images/x.png", {}, {"local_path": "/home/me/datasets/cells/images/x.png"}),
        ("images/clip/0000001.png", {"name": "clip/0000001.png", "path": "/clip"}, {}),
    ],
)
def test_the_image_is_found(tmp_path, image, item, source):
    write_image(tmp_path, IMAGE._replace(file_name=image))
    content = darwin_json(IMAGE)
    content["item"].update(item)
    content["item"]["slots"][0]["source_files"][0].update(source)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/annotation.json").write_text(json.dumps(content), encoding="utf-8")
    assert read(darwin.find, tmp_path).images[0].path == tmp_path / image


def test_each_slot_of_an_item_is_an_image(folder, tmp_path):
    one, two = shape(slot_names=["left"]), shape(slot_names=["right"], name="dog")
    sides = [e | darwin_box(b) | e for e, b in ((one, IMAGE.boxes[0]), (two, IMAGE.boxes[0]))]
    content = darwin_json(IMAGE, *sides)
    content["item"]["slots"] = [
        {"slot_name": name, "type": "image", "source_files": [{"file_name": f"{name}.png"}]}
        for name in ("left", "right")
    ]
    for name in ("left", "right"):
        write_image(tmp_path / "images", IMAGE._replace(file_name=f"a.png/{name}/{name}.png"))
    path = tmp_path / "annotations/a.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content), encoding="utf-8")
    images = read(darwin.find, tmp_path).images
    assert [(im.path.name, im.objects[0].class_name) for im in images] == [
        *(("left.png", "cat"), ("right.png", "dog")),
    ]
    assert images[0].where == "slot 'left'" and all(im.path.is_file() for im in images)
    del content["annotations"][1]["slot_names"]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(
        DataError, match=r"annotations\[1\]: slot_names is None; name one of .*'left'"
    ):
        read(darwin.find, tmp_path)


def test_videos_are_left_out_and_their_frames_are_read(folder):
    frames = {"0": {"bounding_box": {"x": 1, "y": 2, "w": 3, "h": 4}, "keyframe": True}}
    video = darwin_json(IMAGE, shape(frames=frames), type="video", frame_count=8)
    folder(video, name="video.json")
    folder(v1(shape(frames=frames), fps=30.0), name="older.json")
    # As `darwin dataset split_video` writes a frame.
    frame = darwin_json(IMAGE, darwin_box(IMAGE.boxes[0]), type="video")
    root = folder(frame, name="frame.json")
    assert found_boxes(root) == [(4, 6, 20, 12)]
    assert reasons(read(darwin.find, root)) == {darwin.NOT_IMAGES: 2}


def test_lists_of_another_machine_and_missing_files(tmp_path):
    write_darwin(tmp_path, SMALL)
    lists = tmp_path / "releases/latest/lists/default"
    lines = ["a.json\n", "C:\\me\\x\\annotations\\c.json\n", "\n", "/x/annotations/gone.json\n"]
    (lists / "random_train.txt").write_text("".join(lines), encoding="utf-8")
    shutil.copy(lists / "random_val.txt", lists / "stratified_polygon_train.txt")  # not used
    with pytest.raises(DataError, match=r"random_train\.txt: line 4: .* no annotation file 'gone'"):
        read(darwin.find, tmp_path)
    content = read(darwin.find, tmp_path, on_error="skip")
    assert list(boxes(content)) == ["a.png", "c.png"]
    assert content.notes == (
        (darwin_lists.UNLISTED, str(tmp_path / "releases/latest/annotations/b 1.json")),
    )


def test_several_releases_or_lists_are_an_error(tmp_path):
    write_darwin(tmp_path, SMALL)
    release = tmp_path / "releases/latest"
    (release / "lists/default").rename(release / "lists/60_20_20")
    assert darwin.find(tmp_path).splits == ("train", "val")
    shutil.copytree(release / "lists/60_20_20", release / "lists/80_10_10")
    with pytest.raises(DataError, match="has lists of splits in 60_20_20, 80_10_10"):
        darwin.find(tmp_path)
    shutil.rmtree(release / "lists")
    shutil.copytree(release, tmp_path / "releases/v2")
    assert darwin.find(tmp_path).splits == ("train",)
    release.rename(tmp_path / "releases/v1")
    with pytest.raises(DataError, match=r"releases v1, v2; link releases/latest"):
        darwin.find(tmp_path)
    with pytest.raises(DataError, match=rf"is a release, .* set data\.root to {tmp_path}"):
        darwin.find(tmp_path / "releases/v1")


@pytest.mark.parametrize(
    "bad, message",
    [
        (3, "is 3; write a JSON object"),
        (shape(bounding_box={"x": 1, "y": 2, "w": 3}), "write numbers for x, y, w, h"),
        (shape(bounding_box=[1, 2, 3, 4]), "bounding_box: is [1, 2, 3, 4]"),
        (shape(polygon={"paths": []}), "polygon is {'paths': []}"),
        (shape(polygon={"paths": [[]]}), "polygon is []"),
        (shape(polygon={"paths": [[[1]]]}), "numbers for the x and y of each point"),
        (shape(polygon=3), "polygon is 3"),
        (
            shape(polygon={"path": xy((1, 2)), "additional_paths": 5}),
            "additional_paths is 5; write a list of paths",
        ),
        (shape(ellipse={"center": {"x": 1, "y": 1}}), "has no field 'radius'"),
        (shape(blob={}), "has the fields 'id', 'name', 'slot_names', 'blob'"),
        (darwin_box(Box(" ", 1, 2, 3, 4)), "the class is ' '"),
    ],
)
def test_a_bad_annotation_is_an_error_that_names_it(folder, bad, message):
    root = folder(darwin_json(IMAGE, darwin_box(IMAGE.boxes[0]), bad))
    with pytest.raises(DataError) as error:
        read(darwin.find, root)
    assert message in str(error.value) and "a.json: annotations[1]" in str(error.value)
    assert len(read(darwin.find, root, on_error="skip").images[0].objects) == 1


@pytest.mark.parametrize(
    "change, message",
    [
        ({"annotations": {}}, "annotations is {}"),
        ({"item": {"slots": [3]}}, r"item: slots is \[3\]"),
        ({"item": 3}, "item is 3"),
    ],
)
def test_a_bad_file_is_an_error(folder, change, message):
    folder(darwin_json(IMAGE))
    root = folder(darwin_json(IMAGE) | change, name="b.json", image="b.png")
    with pytest.raises(DataError, match=rf"b\.json: {message}"):
        read(darwin.find, root)
    assert len(read(darwin.find, root, on_error="skip").images) == 1
    (root / "annotations/b.json").write_text('{"item": {"slots": [', encoding="utf-8")
    with pytest.raises(DataError, match=r"b\.json: is not JSON"):
        read(darwin.find, root)


def test_darwin_py_gives_the_same_boxes(folder):
    utils = pytest.importorskip("darwin.utils")
    content = darwin_json(IMAGE, darwin_box(IMAGE.boxes[0]), darwin_box(Box("cat", 1.5, 2, 3, 4)))
    root = folder(content)
    parsed = utils.parse_darwin_json(root / "annotations/a.json")
    theirs = [
        (a.annotation_class.name, *(a.data[side] for side in ("x", "y", "w", "h")))
        for a in parsed.annotations
    ]
    assert boxes(read(darwin.find, root))["a.png"] == theirs
