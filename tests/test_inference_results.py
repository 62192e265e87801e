"""ImageDetections: selection, drawing, formats; also without any object."""

import json
import sys
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from small_detector import CATEGORIES

from retinanet_jax.config.settings import ConfigError
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.inference.results import Detection, ImageDetections

IMAGE = np.full((60, 80, 3), 128, np.uint8)


def detections(image=IMAGE) -> ImageDetections:
    boxes = np.float32([[10, 20, 30, 50], [0, 0, 8, 8], [40, 5, 70, 55]])
    scores, labels = np.float32([0.9, 0.75, 0.5]), np.int32([3, 2, 3])
    return ImageDetections(boxes, scores, labels, CATEGORIES, image, (60, 80))


def nothing() -> ImageDetections:
    return detections().select(threshold=1)


def test_iteration_and_indexing():
    found = detections()
    assert len(found) == 3 and found.names == ("dog", "cat", "dog")
    assert [(name, label, round(score, 2)) for _, score, label, name in found] == [
        ("dog", 3, 0.9),
        ("cat", 2, 0.75),
        ("dog", 3, 0.5),
    ]
    first = found[0]
    assert isinstance(first, Detection) and first.name == "dog" and first.box.tolist()[3] == 50
    assert found[-1].score == 0.5
    for index in (found.scores > 0.6, slice(2), [0, 1], np.array([0, 1])):
        assert found[index].labels.tolist() == [3, 2]
    assert len(found[[]]) == 0 and len(found[found.scores > 1]) == 0
    with pytest.raises(IndexError):
        found[3]


def test_select():
    found = detections()
    assert found.select(threshold=0.75).scores.tolist() == [np.float32(0.9)]  # strictly above
    assert found.select(classes=["dog"], max_detections=1).boxes.tolist() == [[10, 20, 30, 50]]
    assert found.select(classes="cat").labels.tolist() == [2]
    assert found.select(classes=["cat"], max_detections=1).labels.tolist() == [2]
    assert found.select(classes=["cat"], threshold=0.75).labels.tolist() == []
    assert len(found.select(classes=[])) == 0
    with pytest.raises(ConfigError, match="no class 'dgo'; did you mean dog"):
        found.select(classes=["dgo"])


def test_plot_draws_every_box_and_saves(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(IMAGE).save(path)
    image = detections(path).plot(tmp_path / "drawn.png", long_side=80)
    assert image.size == (80, 60)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "drawn.png")), image)
    differs = (np.asarray(image) != IMAGE).any(axis=2)
    assert differs[50, 12:28].all() and differs[54, 42:68].all()
    assert detections().plot().size == (480, 360)  # legible
    np.testing.assert_array_equal(np.asarray(nothing().plot(long_side=80)), IMAGE)


def test_plot_raises_for_unwritable_paths_and_changed_images(tmp_path):
    for name in ("drawn.abc", "none/drawn.png"):
        with pytest.raises(DataError, match="cannot be written"):
            detections().plot(tmp_path / name)
    path = tmp_path / "image.png"
    Image.fromarray(IMAGE[:30]).save(path)
    with pytest.raises(DataError, match=r"is \(30, 80\) .* was \(60, 80\)"):
        detections(path).plot()


def test_coco_results():
    results = detections().to_coco(7)
    assert json.loads(json.dumps(results))[0] == {
        "image_id": 7,
        "category_id": 11,  # of label 3, a dog
        "bbox": [10, 20, 20, 30],
        "score": pytest.approx(0.9),
    }
    assert [result["category_id"] for result in results] == [11, 7, 11]
    assert nothing().to_coco(7) == []


def test_yolo_labels_and_voc_xml():
    """Against the formats' definitions, and without the box that has no area."""
    found = detections()
    found.boxes[2] = [40, 5, 40, 55]
    assert found.to_yolo() == "3 0.25 0.583333333 0.25 0.5\n2 0.05 0.0666666667 0.1 0.133333333\n"
    root = ElementTree.fromstring(found.to_voc("a & b.jpg"))
    assert root.findtext("filename") == "a & b.jpg"
    assert [root.findtext(f"size/{side}") for side in ("width", "height", "depth")] == [
        *("80", "60", "3")
    ]
    boxes = [[float(corner.text) for corner in box] for box in root.findall("object/bndbox")]
    assert boxes == [[10, 20, 30, 50], [0, 0, 8, 8]]
    assert [name.text for name in root.findall("object/name")] == ["dog", "cat"]
    assert nothing().to_yolo() == "" and "<object>" not in nothing().to_voc("a.jpg")


def test_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)  # as if it were not installed
    with pytest.raises(ImportError, match="pip install pandas"):
        detections().to_pandas()

    def frame(rows, columns):
        return list(columns), rows

    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=frame))
    columns, rows = detections().to_pandas()
    assert [list(row) for row in rows] == [columns] * 3
    assert rows[1] == {"class": "cat", "score": 0.75, "x1": 0, "y1": 0, "x2": 8, "y2": 8}
    assert nothing().to_pandas() == (columns, [])


def test_json():
    rows = json.loads(detections().to_json())
    assert rows[1] == {"class": "cat", "score": 0.75, "x1": 0, "y1": 0, "x2": 8, "y2": 8}
    assert len(rows) == 3 and nothing().to_json() == "[]"


def test_repr():
    assert repr(detections()) == "ImageDetections(3 in 60 x 80: dog 0.90, cat 0.75, dog 0.50)"
    assert repr(nothing()) == "ImageDetections(0 in 60 x 80)"


def test_supervision_gets_the_same_objects():
    supervision = pytest.importorskip("supervision")
    found = detections().to_supervision()
    assert isinstance(found, supervision.Detections) and len(found) == 3
    np.testing.assert_array_equal(found.xyxy[1], [0, 0, 8, 8])
    assert found["class_name"].tolist() == ["dog", "cat", "dog"]
    assert found.class_id.tolist() == [3, 2, 3]
    assert len(nothing().to_supervision()) == 0
