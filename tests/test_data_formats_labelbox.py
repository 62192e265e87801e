"""Labelbox's exports: lines and lists, both versions, labels of consensus, splits, errors."""

import json

import pytest
from layout_writers import (
    SMALL,
    Annotated,
    Box,
    labelbox_label,
    labelbox_object,
    labelbox_row,
    write_image,
    write_labelbox,
)
from raw_reading import boxes, expected, read, reasons

from retinanet_jax.data.annotations.split_content import NO_BOX, OUTLINE
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats import label_studio, labelbox, labelbox_rows
from retinanet_jax.data.formats.find_layout import find_layout

IMAGE = Annotated("a.png", 64, 48, (Box("Red Cell", 4, 6, 20, 12),))


@pytest.fixture
def folder(tmp_path):
    """A function that writes a.png and an export of some data rows, each a line."""

    def write(*rows, name="export-result.ndjson"):
        write_image(tmp_path, IMAGE)
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path

    return write


def row(*objects: dict, **fields) -> dict:
    """A data row of a.png with one label of some objects."""
    return labelbox_row(IMAGE, labelbox_label(*objects)) | fields


def shape(kind: str, **fields) -> dict:
    return {"name": "cat", "value": "cat", "annotation_kind": kind, **fields}


def v1(label, **fields) -> dict:
    """An entry of export v1."""
    place = {"DataRow ID": "ck1", "External ID": "a.png", "Labeled Data": "https://x.example/1"}
    return {"ID": "ck9", **place, "Label": label, "Skipped": False, "Data Split": None, **fields}


def xy(*points) -> list[dict]:
    return [{"x": x, "y": y} for x, y in points]


def named(content) -> list[str]:
    return [o.class_name for image in content.images for o in image.objects]


def test_each_split_is_read(tmp_path):
    write_labelbox(tmp_path, SMALL)
    layout = labelbox.find(tmp_path)
    assert (layout.name, layout.tool) == ("labelbox", "Labelbox export")
    assert set(layout.splits) == {"train", "val"}
    for split in SMALL:
        content = read(labelbox.find, tmp_path, split)
        assert boxes(content) == expected(SMALL, split) and not content.notes
        assert [im.size for im in content.images] == [(i.height, i.width) for i in SMALL[split]]
        assert all(image.path.is_file() for image in content.images)
    assert read(labelbox.find, tmp_path / "val.ndjson", "val").images[0].where == "line 1"


@pytest.mark.parametrize("name", ["export.json", "export.ndjson"])
def test_a_list_of_data_rows_is_read_and_not_taken_for_label_studios(folder, name):
    root = folder(json.dumps([row(labelbox_object(IMAGE.boxes[0])), row()], indent=1), name=name)
    assert find_layout(root).layout.name == "labelbox" and label_studio.find(root) is None
    content = read(labelbox.find, root)
    assert [image.where for image in content.images] == ["[0]", "[1]"]
    assert boxes(read(labelbox.find, folder(json.dumps(row(), indent=1), name=name)))


def test_shapes_have_their_bounding_boxes_and_masks_are_left_out(folder):
    root = folder(
        row(
            labelbox_object(IMAGE.boxes[0]),
            shape("ImagePolygon", polygon=xy((1, 2), (11.5, 4), (3, 22))),
            shape("ImagePoint", point={"x": 1, "y": 2}),
            shape("ImagePolyline", line=xy((1, 2), (3, 4))),
            shape("ImageSegmentationMask", mask={"url": "https://x.example/1"}),
            shape("ImageSegmentationMask", composite_mask={"url": "https://x.example/1"}),
        )
    )
    content = read(labelbox.find, root)
    assert boxes(content)["a.png"] == [("Red Cell", 4, 6, 20, 12), ("cat", 1, 2, 10.5, 20)]
    assert reasons(content) == {OUTLINE: 1, NO_BOX: 1, labelbox.MASKS: 1}


def test_export_v1_is_read(folder):
    objects = [
        {"title": "Red Cell", "value": "red_cell", "instanceURI": "https://x.example/1"}
        | {"bbox": {"top": 6, "left": 4, "height": 12, "width": 20}},
        {"title": "cat", "polygon": xy((1, 2), (11, 4), (3, 22)), "instanceURI": "https://x/2"},
        {"title": "cat", "instanceURI": "https://x.example/3"},
        {"title": "cat", "point": {"x": 1, "y": 2}, "instanceURI": "https://x.example/4"},
    ]
    media = {"width": 64, "height": 48, "mimeType": "image/png"}
    entries = [
        v1({"objects": objects, "classifications": []}, **{"Media Attributes": media}),
        v1({}, Skipped=True, **{"DataRow ID": "ck2"}),
        v1("Skip", **{"DataRow ID": "ck3"}),
        v1([{"frameNumber": 1, "objects": []}], **{"DataRow ID": "ck4"}),
    ]
    content = read(labelbox.find, folder(json.dumps(entries), name="export.json"))
    assert boxes(content)["a.png"] == [("Red Cell", 4, 6, 20, 12), ("cat", 1, 2, 10, 20)]
    assert content.images[0].size == (48, 64) and content.images[0].where == "[0]"
    assert reasons(content) == {
        **{OUTLINE: 1, NO_BOX: 1, labelbox.MASKS: 1},
        **{labelbox.WITHOUT: 2, labelbox.NOT_IMAGES: 1},
    }


def test_labels_of_one_data_row_in_v1_are_several_labels_of_it(folder):
    old, new = (
        v1({"objects": [{"title": name, "bbox": {"top": 1, "left": 1, "height": 9, "width": 9}}]})
        | {"Updated At": time}
        for name, time in (("old", "2021-01-01T00:00:00.000Z"), ("new", "2022-01-01T00:00:00.000Z"))
    )
    content = read(labelbox.find, folder(json.dumps([new, old]), name="export.json"))
    assert named(content) == ["new"] and reasons(content) == {labelbox_rows.SEVERAL: 1}


@pytest.mark.parametrize(
    "selected, benchmark, wanted", [(None, None, "b"), (None, "a", "a"), ("c", "a", "c")]
)
def test_the_label_that_counts(folder, selected, benchmark, wanted):
    labels = [
        labelbox_label(
            labelbox_object(Box(name, 1, 2, 3, 4)),
            id=name,
            label_details={"updated_at": time, "is_benchmark_reference": name == benchmark},
            performance_details={"skipped": name == "d"},
        )
        for name, time in (("a", "2023"), ("b", "2024"), ("c", "2022"), ("d", "2025"))
    ]
    several = labelbox_row(IMAGE, *labels)
    several["projects"]["ck4"]["project_details"]["selected_label_id"] = selected
    content = read(labelbox.find, folder(several))
    assert named(content) == [wanted] and reasons(content) == {labelbox_rows.SEVERAL: 1}


def test_rows_without_a_label_and_other_media_are_left_out_and_noted(folder):
    video = row() | {"media_attributes": {"mime_type": "video/mp4"}}
    frames = labelbox_row(IMAGE, {"id": "1", "annotations": {"frames": {}, "segments": {}}})
    skipped = labelbox_row(IMAGE, labelbox_label(performance_details={"skipped": True}))
    empty = row(projects={"ck4": {"labels": []}})
    root = folder(video, frames, skipped, empty, row(projects={}), row())
    content = read(labelbox.find, root)
    assert [image.where for image in content.images] == ["line 6"]
    assert reasons(content) == {labelbox.NOT_IMAGES: 2, labelbox.WITHOUT: 3}


def test_a_row_of_several_projects_is_an_error(folder):
    both = row(labelbox_object(IMAGE.boxes[0]))
    both["projects"]["ck7"] = both["projects"]["ck4"] | {"name": "nuclei"}
    unlabelled = row()
    unlabelled["projects"]["ck7"] = {"name": "nuclei", "labels": []}
    root = folder(unlabelled, both)
    with pytest.raises(DataError, match=r"line 2: is labelled in several .*: cells and nuclei"):
        read(labelbox.find, root)
    assert len(read(labelbox.find, root, on_error="skip").images) == 1


def run(split: str | None, *objects: dict) -> dict:
    """What a model run adds to a data row."""
    found = {"name": "1", "labels": [labelbox_label(*objects)], "predictions": []}
    return {"experiments": {"ck8": {"runs": {"ck9": found | {"data_split": split}}}}}


@pytest.mark.parametrize(
    "fields",
    [
        lambda split: {"data_split": split},
        lambda split: run(split),
        lambda split: {
            "metadata_fields": [{"schema_name": "split", "value": [{"schema_name": split}]}]
        },
        lambda split: {"metadata_fields": [{"schema_name": "split", "value": split}]},
    ],
)
def test_the_splits_of_data_rows_are_those_of_the_dataset(folder, fields):
    rows = [
        labelbox_row(Annotated(f"{n}.png", 64, 48)) | (fields(split) if split else {})
        for n, split in enumerate(("TRAINING", "VALIDATION", "TEST", "UNASSIGNED", None))
    ]
    root = folder(*rows)
    assert labelbox.find(root).splits == ("train", "val", "test")
    found = {split: list(boxes(read(labelbox.find, root, split))) for split in ("train", "val")}
    assert found == {"train": ["0.png", "3.png", "4.png"], "val": ["1.png"]}


def test_notes_are_those_of_the_split(folder):
    root = folder(row(data_split="VALIDATION"), row(data_split="TRAINING", projects={}))
    assert reasons(read(labelbox.find, root)) == {labelbox.WITHOUT: 1}
    assert not read(labelbox.find, root, "val").notes


def test_splits_of_rows_count_in_each_of_several_files(folder):
    for number, split in enumerate(("TRAINING", "VALIDATION")):
        image = Annotated(f"{number}.png", 64, 48)
        inner = labelbox_row(image) | {"data_split": split}
        folder(
            inner, labelbox_row(image._replace(file_name=f"x{number}.png")), name=f"{number}.json"
        )
    # Of another split than in its other file, which is no reason to refuse both.
    again = labelbox_row(Annotated("x1.png", 64, 48)) | {"data_split": "VALIDATION"}
    root = folder(row(data_split="VALIDATION"), again, name="2.json")
    assert list(boxes(read(labelbox.find, root))) == ["0.png", "x0.png", "x1.png"]
    assert list(boxes(read(labelbox.find, root, "val"))) == ["1.png", "a.png", "x1.png"]


def test_splits_of_rows_count_in_any_number_of_files(folder):
    for number in range(22):
        split = ("TRAINING", "VALIDATION")[number % 2]
        inner = labelbox_row(Annotated(f"{number}.png", 64, 48)) | {"data_split": split}
        root = folder(inner, name=f"{number}.json")
    assert set(labelbox.find(root).splits) == {"train", "val"}
    for split, first in (("train", 0), ("val", 1)):
        found = boxes(read(labelbox.find, root, split))
        assert set(found) == {f"{number}.png" for number in range(first, 22, 2)}


def test_files_are_compared_by_the_name_that_they_state(folder):
    first, second = (labelbox_row(Annotated(f"{n}/a.png", 64, 48)) | {"is": n} for n in range(2))
    for row_of in (first, second):
        row_of["data_row"]["row_data"] = "https://x.example/a.png"
    root = folder(first, name="1.json")
    assert labelbox.find(folder(second, name="2.json")).splits == ("train",)
    folder(first, name="2.json")
    assert len(read(labelbox.find, root).images) == 1
    folder(first | {"media_attributes": {}}, name="2.json")
    with pytest.raises(DataError, match=r"both 1\.json and 2\.json annotate 'train'"):
        labelbox.find(root)


def test_the_labels_of_a_model_run_are_read_where_there_are_no_projects(folder):
    alone = row(**run("TRAINING", labelbox_object(IMAGE.boxes[0])))
    del alone["projects"]
    assert named(read(labelbox.find, folder(alone))) == ["Red Cell"]


@pytest.mark.parametrize(
    "names",
    [
        {"external_id": "a.png"},
        {"external_id": None, "global_key": "a.png"},
        {"external_id": "one", "row_data": "https://x.example/org%2Fa.png?Expires=1&Key=b.png"},
        {"external_id": "s3://bucket/deep/a.png"},
        {"external_id": "a"},
        {"id": "a"},
    ],
)
def test_the_image_is_found(folder, names):
    root = folder(row(data_row={"id": "ck2", **names}))
    assert read(labelbox.find, root).images[0].path == root / "a.png"


def test_a_missing_image_is_named_by_its_file(folder):
    address = "https://x.example/deep/b%201.png?Expires=1"
    root = folder(row(data_row={"id": "ck2", "global_key": "ck3", "row_data": address}))
    assert read(labelbox.find, root).images[0].file_name in ("deep/b 1.png", "deep/b%201.png")


def test_quoted_names_and_names_of_several_images(folder, tmp_path):
    for width, place in enumerate(("one", "two"), 63):
        write_image(tmp_path / place, Annotated("b 1.png", width, 48))
    address = "https://x.example/bucket/two/b%201.png"
    both = row(data_row={"id": "ck2", "external_id": "b%201.png", "row_data": address})
    assert read(labelbox.find, folder(both)).images[0].path == tmp_path / "two" / "b 1.png"
    del both["data_row"]["row_data"]
    with pytest.raises(DataError, match=r"line 1: 'b 1.png' may mean one/b 1.png, two/b 1.png"):
        read(labelbox.find, folder(both))


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"bounding_box": {"top": 1, "left": "x", "height": 3, "width": 4}}, "bounding_box: is {"),
        ({"bounding_box": [1, 2, 3, 4]}, "write numbers for left, top, width, height"),
        ({"polygon": xy((1, 2), (3, 4))}, "polygon is [{'x': 1"),
        ({"polygon": [{"x": 1}, [3, 4], [5, 6]]}, "write numbers for the x and y of each point"),
        ("box", "object 1: is 'box'; write a JSON object"),
        ({"location": {"start": 1, "end": 2}}, "no known shape, only the fields name, value"),
        (
            {"bounding_box": labelbox_object(IMAGE.boxes[0])["bounding_box"], "name": 3},
            "class is 3",
        ),
    ],
)
def test_a_bad_object_is_an_error_that_names_it(folder, bad, message):
    bad = shape("ImageBoundingBox") | bad if isinstance(bad, dict) else bad
    root = folder(row(labelbox_object(IMAGE.boxes[0]), bad))
    with pytest.raises(DataError) as error:
        read(labelbox.find, root)
    assert message in str(error.value) and "ndjson: line 1: object 1" in str(error.value)
    assert len(read(labelbox.find, root, on_error="skip").images[0].objects) == 1


@pytest.mark.parametrize(
    "bad, message",
    [
        ('{"data_row": {"id": "ck', "is not JSON (Unterminated string"),
        ("3", "is 3; export the annotations again"),
        ({"rows": []}, "has no field 'data_row'"),
        (row(data_row={"row_data": 3}), "write the name of its file as external_id"),
        (row(data_row=3), "data_row is 3"),
        (row(projects=[]), "projects is []"),
        (row(projects={"ck4": {"labels": [3]}}), "a label is 3"),
        (labelbox_row(IMAGE, {"annotations": {"objects": {}}}), "objects is {}"),
        (labelbox_row(IMAGE, {"annotations": {"Car": []}}), "a label with the fields 'Car'"),
        (row(data_split="FOLD 1"), "the split is 'FOLD 1'; write TRAINING, VALIDATION or TEST"),
        (row(data_split="TEST", split="TRAINING"), "the split is 'TEST' and 'TRAINING'"),
    ],
)
def test_a_bad_line_is_an_error_that_names_it(folder, bad, message):
    root = folder(row(), bad, row())
    with pytest.raises(DataError) as error:
        read(labelbox.find, root)
    assert message in str(error.value) and "export-result.ndjson: line 2" in str(error.value)
    assert len(read(labelbox.find, root, on_error="skip").images) == 2


def test_labelformat_gives_the_same_boxes(tmp_path):
    reader = pytest.importorskip("labelformat.formats.labelbox")
    write_labelbox(tmp_path, SMALL)
    key = reader.FilenameKeyOption.EXTERNAL_ID
    theirs = reader.LabelboxObjectDetectionInput(tmp_path / "train.ndjson", "cat,dog", key)
    found = {}
    for label in theirs.get_labels():
        corners = [(o.category.name, o.box) for o in label.objects]
        found[label.image.filename] = [
            (name, b.xmin, b.ymin, b.xmax - b.xmin, b.ymax - b.ymin) for name, b in corners
        ]
    assert boxes(read(labelbox.find, tmp_path)) == found
