"""The inspection page: well formed, self-contained and escaped for all data; the command."""

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from html_check import check
from memory_data import memory_dataset, objects_of, random_objects
from small import small_config

from retinanet_jax.core.anchors import anchors_for_image
from retinanet_jax.core.boxes import pairwise_iou
from retinanet_jax.data.data_errors import Report
from retinanet_jax.reports.html_page import Html, findings_list, tag
from retinanet_jax.reports.inspection.inspection_page import inspect_data, render_inspection
from retinanet_jax.reports.inspection.page_images import MAX_DRAWN, overlay
from retinanet_jax.reports.inspection.split_statistics import (
    count_classes,
    count_levels,
    read_split,
)

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("кот", "<script>alert('x')</script>", '" onload="x', "猫 & co")


def page_of(train, evaluation, names=("thing",), config=None, fit=True, report=None) -> str:
    config = config or small_config(model__max_level=5)
    reports = {"report": report} if report else {}
    splits = [
        read_split(split, memory_dataset(objects, names, split, **reports), config, 1000)
        for split, objects in (("train", train), ("val", evaluation))
    ]
    return render_inspection(splits, config, fit)


def test_class_names_are_escaped():
    objects = random_objects(0, [(20, 20), (40, 30), (5, 5)], classes=4)
    checker = check(page_of(objects, objects[:3], NAMES))
    text = "\n".join(checker.text)
    for name in NAMES:
        assert text.count(name) >= 3  # in the legend, the table and on images
    assert "Findings" in text and "Fitted anchors" in text
    assert sum(name == "image" for name, _ in checker.tags) > 20


def test_both_splits_are_shown_as_the_tiles_that_the_network_sees():
    config = small_config(data__tile=32, data__tile_overlap=0.0, model__max_level=5)
    text = "\n".join(check(inspect_data(config)).text)
    # Five evaluation images of 64x64 have four tiles each; all of the 16 training images have some.
    assert "20 tiles of 5 images" in text and "tiles of 16 images" in text
    assert "Evaluation also detects in the whole images." in text


@pytest.mark.parametrize(
    ("train", "evaluation"),
    [
        ([objects_of([])], [objects_of([])]),
        ([objects_of([[5, 5, 40, 40]])], [objects_of([])]),
        ([objects_of([[5, 5, 5, 5]]), objects_of([[0, 0, 64, 64]])], [objects_of([[1, 1, 2, 2]])]),
        ([objects_of([[5, 5, 40, 40]], crowd=[1])], [objects_of([[5, 5, 40, 40]], crowd=[1])]),
    ],
    ids=["no objects", "one object", "no area", "crowds alone"],
)
def test_unusual_data_give_a_page(train, evaluation):
    text = "\n".join(check(page_of(train, evaluation)).text)
    counts = {len(boxes) for boxes, *_ in train}
    assert ("train has no objects" in text) == (counts == {0} or train[0][2].all())


def test_eighty_classes_and_ten_thousand_boxes():
    names = tuple(f"class {i}" for i in range(80))
    crowded = random_objects(1, [(6, 6), (9, 3)], images=1, count=10_000, classes=80)
    page = page_of(crowded * 2, crowded, names, small_config(pipeline__max_boxes=10_000), fit=False)
    checker = check(page)
    assert len(page) < 5_000_000
    text = "\n".join(checker.text)
    assert all(text.count(name) for name in names) and "10,000" in text


def test_skipped_entries_are_listed_by_file_and_id():
    report = Report.from_json({"box without <area>": [f"a.json: id {i}" for i in range(300)]})
    objects = random_objects(0, [(20, 20)])
    text = "\n".join(check(page_of(objects, objects, report=report, fit=False)).text)
    assert "a.json: id 7\n" in text and "and 100 more" in text
    # Both splits share the report, as those of COCO do. It is shown once.
    assert text.count("train and val: 300") == 1 and "300 x box without <area>" in text


def test_page_is_deterministic():
    objects = random_objects(0, [(20, 20), (40, 10)])
    assert page_of(objects, objects) == page_of(objects, objects)


def test_counts_by_class_size_and_coverage():
    boxes = [[0, 0, 31, 32], [0, 0, 32, 32], [0, 0, 96, 95], [0, 0, 96, 96], [0, 0, 9, 9]]
    objects = [objects_of(boxes, [0, 0, 0, 0, 1]), objects_of(boxes[:1], [0], [1])]
    config = small_config(pipeline__min_side=128, pipeline__max_side=128)
    split = read_split("train", memory_dataset(objects, ("a", "b"), size=(128, 128)), config, 9)
    first, second = count_classes(split, 2, config)
    assert first == (4, (1, 2, 1), 1, (4, 0, 0)) and second == (1, (1, 0, 0), 1, (0, 0, 1))


def test_positives_by_level_follow_the_matching_rule():
    config = small_config(model__max_level=5, matching__low_quality="none")
    objects = random_objects(3, [(30, 30), (60, 40), (15, 15)], images=3)
    split = read_split("train", memory_dataset(objects), config, 9)
    found = count_levels(split, config)
    for place, anchors in enumerate(anchors_for_image((64, 64), config.anchors)):
        best = [np.asarray(pairwise_iou(anchors, boxes)).max(axis=1) for boxes, *_ in objects]
        positive = np.mean([(iou >= 0.5).sum() for iou in best])
        ignored = np.mean([((iou >= 0.4) & (iou < 0.5)).sum() for iou in best])
        row = found[place]
        assert row[:2] == (place + 3, len(anchors))
        assert row[2:4] == pytest.approx((positive, ignored))
    assert sum(row.boxes for row in found) == pytest.approx(1)


def test_the_largest_of_many_boxes_are_drawn():
    image = np.zeros((100, 200, 3), np.uint8)
    boxes = np.tile(np.float32([[0, 0, 5, 5]]), (MAX_DRAWN + 5, 1))
    boxes[-1] = 0, 0, 150, 90
    labels, crowd = np.zeros(len(boxes), np.int32), np.zeros(len(boxes), bool)
    svg = overlay(image, boxes, labels, crowd, ("thing",))
    assert svg.count("<rect") == MAX_DRAWN
    assert 'width="150" height="90"' in svg and 'viewBox="0 0 200 100"' in svg


def test_tags_escape_text_and_round_numbers():
    assert tag("b", "<", Html("<i></i>"), [1.0, None], x=1 / 3, class_="a", y=None) == (
        '<b x="0.33" class="a">&lt;<i></i>1</b>'
    )
    assert tag("meta", name="a", content='"<') == '<meta name="a" content="&quot;&lt;">'


def test_commands_in_a_fix_are_code():
    html = findings_list([("A problem.", "Use --a=1, or retinanet-jax inspect --fit_anchors.")])
    assert "<code>--a=1</code>, or <code>retinanet-jax inspect --fit_anchors</code>." in html
    assert "No problems found." in findings_list([])


def test_images_differ_between_epochs_with_augmentation_only():
    objects = random_objects(0, [(20, 20)])

    def draws(**fields):
        page = page_of(objects, objects, config=small_config(**fields), fit=False)
        return page.split("in several epochs</h3>")[1].split("<h3>Evaluation")[0]

    sizes = re.findall(r"boxes · (\d+)", draws(augmentation__scale_jitter=(0.5, 1.0)))
    assert len(sizes) == 12 and len(set(sizes)) > 4
    images = re.findall(r"<svg.*?</svg>", draws(augmentation__flip=False))
    assert len(images) == 12 and len(set(images)) == 3


@pytest.fixture
def folder(tmp_path):
    """A dataset whose validation split has an invalid box, id 2."""
    folder, rng = tmp_path / "mine", np.random.default_rng(0)
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").mkdir()
    content = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "Zellkern ä"}]}
    for i in range(1, 5):
        cv2.imwrite(str(folder / f"images/{i}.jpg"), rng.integers(0, 255, (40, 50, 3), np.uint8))
        size = {"width": 50, "height": 40}
        content["images"].append({"id": i, "file_name": f"{i}.jpg", **size})
        box = {"bbox": [5, 5, 4, 4], "area": 16, "iscrowd": 0}
        content["annotations"].append({"id": i, "image_id": i, "category_id": 7, **box})
    for split in ("train", "val"):
        text = json.dumps(content)
        (folder / f"annotations/instances_{split}.json").write_text(text, encoding="utf-8")
        content["annotations"][1]["bbox"] = [5, 5, 0, 4]
    return folder


def inspect_folder(folder: Path, *more: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "retinanet_jax", "inspect", "--config=experiments/folder.py"]
    command += [f"--config.data.root={folder}", f"--config.data.cache_dir={folder.parent}/cache"]
    command += ["--config.pipeline.min_side=64", "--config.pipeline.max_side=64", *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.extended
def test_command_on_a_folder(folder, tmp_path):
    out = tmp_path / "pages/look.html"
    failed = inspect_folder(folder, f"--out={out}")
    assert failed.returncode == 1 and "id 2" in failed.stderr and "Traceback" not in failed.stderr
    assert not out.exists()

    options = ("--config.data.on_error=skip", f"--out={out}")
    done = inspect_folder(folder, *options, "--fit-anchors")
    assert done.returncode == 0, done.stderr
    assert f"written: {out}" in done.stdout
    text = "\n".join(check(out.read_text(encoding="utf-8")).text)
    assert "Zellkern ä" in text and "100.0% of the training boxes have no anchor" in text
    assert "config.anchors.size = " in text and "box without area" in text
    flags = re.findall(r"'(--config\.anchors\.\S+?=.+?)'", text)
    assert len(flags) == 3
    # The fitted anchors cover the boxes.
    again = inspect_folder(folder, *options, *flags)
    assert again.returncode == 0, again.stderr
    assert "100.0% of the training boxes" not in out.read_text(encoding="utf-8")
