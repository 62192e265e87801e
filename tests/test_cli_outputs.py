"""The COCO JSON of `detect` in FiftyOne, by its own importer."""

import numpy as np
import pytest
from PIL import Image

from retinanet_jax.cli.outputs import CocoWriter
from retinanet_jax.data.records import Categories
from retinanet_jax.inference.results import ImageDetections

CATEGORIES = Categories(("cat", "dog"), (7, 3))


@pytest.mark.slow
def test_fiftyone_reads_images_boxes_classes_and_scores(tmp_path, monkeypatch):
    monkeypatch.setenv("FIFTYONE_DISABLE_SERVICES", "1")  # no database
    coco = pytest.importorskip("fiftyone.utils.coco")
    boxes = np.float32([[4, 6, 24, 16], [0, 0, 40, 20]])
    with CocoWriter(tmp_path, CATEGORIES) as writer:
        for name, count in (("a.png", 2), ("b.png", 0)):
            Image.new("RGB", (40, 20)).save(tmp_path / name)
            scores, labels = np.float32([0.75, 0.5]), np.int32([1, 0])
            parts = boxes[:count], scores[:count], labels[:count]
            found = ImageDetections(*parts, CATEGORIES, tmp_path / name, (20, 40))
            writer.add(tmp_path / name, found)
    importer = coco.COCODetectionDatasetImporter(
        data_path=str(tmp_path), labels_path=str(writer.path), label_types="detections"
    )
    with importer:
        samples = {path.rsplit("/", 1)[1]: (size, found) for path, size, found in importer}
    size, found = samples["a.png"]
    assert (size.width, size.height) == (40, 20)
    scored = [(one.label, one.confidence) for one in found.detections]
    assert scored == [("dog", 0.75), ("cat", 0.5)]
    # x, y, width, height as shares of the image.
    shares = [one.bounding_box for one in found.detections]
    np.testing.assert_allclose(shares, [[0.1, 0.3, 0.5, 0.5], [0, 0, 1, 1]], atol=1e-6)
    assert samples["b.png"][1] is None or not samples["b.png"][1].detections
