"""Manifests of SageMaker Ground Truth and Rekognition: lines, failed tasks, adjustments, errors."""

import json

import pytest
from layout_writers import (
    SMALL,
    Annotated,
    Box,
    sagemaker_line,
    write_coco,
    write_image,
    write_sagemaker,
)
from raw_reading import boxes, expected, read, reasons

from retinanet_jax.data.annotations.annotation_fields import TEXT_NUMBER
from retinanet_jax.data.annotations.image_finder import OTHER_FOLDER
from retinanet_jax.data.annotations.split_content import REPLACED
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats import sagemaker
from retinanet_jax.data.formats.find_layout import FINDERS, find_layout

BOX = Box("cat", 4, 6, 20, 12)
IMAGE = Annotated("a.png", 64, 48, (BOX,))


@pytest.fixture
def folder(tmp_path):
    """A function that writes images/a.png and output.manifest with some lines."""

    def write(*lines, name="output.manifest"):
        write_image(tmp_path / "images", IMAGE)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
        return tmp_path

    return write


def task(image=IMAGE, **changes) -> dict:
    """A line with one box; `changes` are for the box."""
    line = sagemaker_line(image, ["bird", "cat"], "job")
    line["job"]["annotations"][0] |= changes
    return line


def failed(attribute="job", **fields) -> dict:
    """The line of a task that failed, as it is in an output manifest: metadata and no label."""
    reason = {"failure-reason": "ClientError: the annotation tasks expired", "retry-count": 1}
    return {"source-ref": "s3://bucket/b.png", f"{attribute}-metadata": reason, **fields}


def adjusted(status="adjusted") -> dict:
    """A line of a job that adjusted the boxes of another, which is in it, too."""
    line = task() | sagemaker_line(
        IMAGE._replace(boxes=(BOX._replace(x=8),)), ["bird", "cat"], "checked"
    )
    line["checked-metadata"] |= {"adjustment-status": status, "creation-date": "2024-06-01T00:00"}
    return line


def test_each_split_is_read(tmp_path):
    write_sagemaker(tmp_path, SMALL)
    layout = sagemaker.find(tmp_path)
    assert layout.tool == "SageMaker Ground Truth manifest"
    assert set(layout.splits) == {"train", "val"}
    for split in SMALL:
        content = read(sagemaker.find, tmp_path, split)
        assert boxes(content) == expected(SMALL, split)
        sizes = [(im.height, im.width) for im in SMALL[split]]
        assert [image.size for image in content.images] == sizes
        assert all(image.path.is_file() for image in content.images)


@pytest.mark.parametrize(
    "name",
    [
        *("output.manifest", "labels.jsonl", "labels.json", "job/manifests/output/output.manifest"),
        *("manifests/output/output.manifest", "labels/output.manifest"),
    ],
)
def test_a_manifest_may_have_any_name_and_is_of_no_other_layout(folder, name):
    root = folder(task(), name=name)
    assert [n for n, find in FINDERS.items() if find(root) is not None] == ["sagemaker"]
    assert find_layout(root).place == root
    assert boxes(read(sagemaker.find, root)) == {"a.png": [tuple(BOX)]}


def test_the_results_of_rekognitions_validation_are_two_splits(folder):
    folder(task(), name="training_manifest_with_validation.json")
    root = folder(task(), name="testing_manifest_with_validation.json")
    assert set(sagemaker.find(root).splits) == {"training", "testing"}


@pytest.mark.parametrize(
    "name",
    [
        *("s3://bucket/deep/a%20b+c.png", "s3://bucket/a b+c.png", "s3://bucket/a+b%2Bc.png"),
        *("a b+c.png", "https://host.example/deep/a%20b+c.png"),
    ],
)
def test_the_image_is_found_by_its_quoted_or_plain_name(folder, name):
    root = folder(task() | {"source-ref": name})
    path = write_image(root / "images" / "2024", Annotated("a b+c.png", 64, 48))
    assert read(sagemaker.find, root).images[0].path == path


def test_a_file_whose_name_has_a_percent_sign_is_found(folder):
    root = folder(task() | {"source-ref": "s3://bucket/a%20b.png"})
    path = write_image(root / "images", Annotated("a%20b.png", 64, 48))
    write_image(root / "images", Annotated("a b.png", 64, 48))
    assert read(sagemaker.find, root).images[0].path == path


def test_tasks_without_boxes_are_left_out_and_noted(folder):
    classes = {"sport": 0, "sport-metadata": {"type": "groundtruth/image-classification"}}
    lines = failed(), {"source-ref": "s3://bucket/c.png", **classes}, task()
    root = folder(*lines)
    content = read(sagemaker.find, root)
    assert [image.file_name for image in content.images] == ["images/a.png"]
    path = root / "output.manifest"
    assert content.notes == (
        (sagemaker.FAILED, f"{path}: line 1"),
        (sagemaker.WITHOUT, f"{path}: line 2"),
        (OTHER_FOLDER, str(root / "images/a.png")),
    )


def test_an_image_in_which_workers_found_nothing_has_no_objects(folder):
    line = sagemaker_line(Annotated("a.png", 64, 48), [], "job")
    content = read(sagemaker.find, folder(line))
    assert boxes(content) == {"a.png": []} and reasons(content) == {OTHER_FOLDER: 1}


@pytest.mark.parametrize("status", ["adjusted", "unadjusted"])
def test_the_latest_of_adjusted_boxes_is_taken(folder, status):
    content = read(sagemaker.find, folder(adjusted(status)))
    assert boxes(content) == {"a.png": [tuple(BOX._replace(x=8))]}
    assert reasons(content) == {OTHER_FOLDER: 1, sagemaker.ADJUSTED: 1}


def outputs(write, *, first=(), second=()):
    """A folder with the output of a job, and of the one that adjusted its boxes."""
    write(*first, name="boxes/manifests/output/output.manifest")
    return write(*second, name="boxes-adjusted/manifests/output/output.manifest")


def of(name: str, line: dict) -> dict:
    """A line for another image."""
    return line | {"source-ref": f"s3://bucket/{name}"}


def test_of_the_outputs_of_a_job_and_of_its_adjustment_the_latest_are_read(folder):
    """The adjusted ones may be a part of the images, as the console offers it."""
    root = outputs(folder, first=[task(), of("b.png", task())], second=[adjusted()])
    write_image(root / "images", IMAGE._replace(file_name="b.png"))
    assert find_layout(root).place == root
    content = read(sagemaker.find, root)
    assert boxes(content) == {"a.png": [tuple(BOX._replace(x=8))], "b.png": [tuple(BOX)]}
    assert reasons(content) == {OTHER_FOLDER: 1, sagemaker.ADJUSTED: 1, REPLACED: 1}


def test_an_adjustment_that_failed_leaves_the_boxes_of_the_job(folder):
    root = outputs(folder, first=[task()], second=[failed("checked", **task())])
    assert boxes(read(sagemaker.find, root)) == {"a.png": [tuple(BOX)]}


def test_three_jobs_of_which_each_adjusted_the_one_before(folder):
    last = adjusted() | sagemaker_line(
        IMAGE._replace(boxes=(BOX._replace(x=9),)), ["bird", "cat"], "final"
    )
    last["final-metadata"] |= {"adjustment-status": "adjusted", "creation-date": "2025-01-01T00:00"}
    folder(last, name="boxes-3/manifests/output/output.manifest")
    root = outputs(folder, first=[task()], second=[adjusted()])
    assert boxes(read(sagemaker.find, root)) == {"a.png": [tuple(BOX._replace(x=9))]}


@pytest.mark.parametrize("change", ["other job", "changed boxes"])
def test_the_outputs_of_independent_jobs_are_an_error_with_a_fix(folder, change):
    second = task(left=9)
    if change == "other job":
        second = sagemaker_line(IMAGE, ["bird", "cat"], "second")
    root = outputs(folder, first=[task()], second=[second])
    wanted = "both boxes/.* annotate 'train'; set data.root to one of the files, or move one"
    with pytest.raises(DataError, match=wanted):
        sagemaker.find(root)
    one = root / "boxes/manifests/output/output.manifest"
    content = read(sagemaker.find, one)
    assert boxes(content) == {"a.png": [tuple(BOX)]}
    assert content.images[0].path == root / "images/a.png"


def test_boxes_whose_adjustment_failed_are_read(folder):
    line = failed("checked", **task())
    assert boxes(read(sagemaker.find, folder(line))) == {"a.png": [tuple(BOX)]}


def test_boxes_of_independent_jobs_are_an_error(folder):
    line = adjusted()
    del line["checked-metadata"]["adjustment-status"]
    with pytest.raises(DataError, match="line 1: has boxes of several labeling jobs: 'job', 'chec"):
        read(sagemaker.find, folder(line))


def test_classes_are_in_the_order_of_their_numbers(folder):
    line = task()
    line["job-metadata"]["class-map"] = {"10": "ant", "2": "zebra", "1": "cat"}
    other = task(class_id=0)
    other["job-metadata"]["class-map"] = {"0": "wolf"}
    other["source-ref"] = "s3://bucket/b.png"
    content = read(sagemaker.find, folder(line, other))
    assert content.class_names == ("wolf", "cat", "zebra", "ant")
    other["job-metadata"]["class-map"] = {"0": "wolf", "1": "dog"}
    assert read(sagemaker.find, folder(line, other)).class_names is None


def test_numbers_written_as_text_are_read_and_noted(folder):
    guarded = read(sagemaker.find, folder(task(left="4", width="20.0")))
    assert boxes(guarded) == {"a.png": [tuple(BOX)]}
    assert reasons(guarded) == {TEXT_NUMBER: 1, OTHER_FOLDER: 1}
    assert boxes(read(sagemaker.find, folder(task(class_id="1")))) == {"a.png": [tuple(BOX)]}


def test_a_missing_size_is_not_needed(folder):
    line = task()
    line["job"]["image_size"] = [{"width": 0, "height": 0, "depth": 3}]
    assert read(sagemaker.find, folder(line)).images[0].size is None


def test_a_dataset_that_was_converted_is_preferred(folder):
    root = folder(task())
    write_coco(root / "converted", SMALL)
    assert find_layout(root).layout.name == "coco"
    assert find_layout(root, "sagemaker").place == root


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"class_id": 7}, "annotation 1: class_id 7 is not in class-map"),
        ({"class_id": "cat"}, "annotation 1: class_id is 'cat'"),
        ({"class_id": None}, "annotation 1: class_id is None"),
        ({"left": "x"}, "annotation 1: is {"),
        ({"top": None}, "write numbers for left, top, width, height"),
        ({"class_id": 3}, "annotation 1: the class is None"),
    ],
)
def test_a_bad_box_is_an_error_that_names_it(folder, changes, message):
    line = task(IMAGE._replace(boxes=(BOX, BOX)))
    line["job"]["annotations"][1] |= changes
    line["job-metadata"]["class-map"]["3"] = None
    root = folder(line)
    with pytest.raises(DataError) as error:
        read(sagemaker.find, root)
    assert message in str(error.value) and "output.manifest: line 1" in str(error.value)
    assert len(read(sagemaker.find, root, on_error="skip").images[0].objects) == 1


def bad_line(**changes) -> dict:
    """A line in which some fields have other values, or none where that is None."""
    return {key: value for key, value in (task() | changes).items() if value is not None}


@pytest.mark.parametrize(
    "bad, message",
    [
        (bad_line(**{"source-ref": None}), "line 2: has no field 'source-ref'"),
        (bad_line(**{"source-ref": 3}), "line 2: source-ref is 3"),
        (bad_line(**{"job-metadata": None}), "line 2: class-map of the metadata is None"),
        (bad_line(job={"annotations": 3}), "line 2: annotations is 3"),
        (bad_line(job=3), "line 2: is 3"),
        ('{"source-ref": "s3://buck', "line 2: is not JSON"),
        ("[1]", "line 2: is [1]"),
    ],
)
def test_a_bad_line_is_an_error_that_names_it(folder, bad, message):
    root = folder(task(), bad)
    with pytest.raises(DataError) as error:
        read(sagemaker.find, root)
    assert message in str(error.value) and "output.manifest" in str(error.value)
    assert len(read(sagemaker.find, root, on_error="skip").images) == 1


def test_manifests_without_boxes_are_not_recognized(folder):
    classes = {"sport": 0, "sport-metadata": {"type": "groundtruth/image-classification"}}
    root = folder({"source-ref": "s3://bucket/a.png", **classes})
    wanted = r"output\.manifest has the keys source-ref, sport, sport-metadata"
    with pytest.raises(DataError, match=rf"no layout fits; .*{wanted}"):
        find_layout(root)
