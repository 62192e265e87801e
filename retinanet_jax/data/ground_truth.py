"""COCO's instances JSON to score against: the part that belongs to the images of a source."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.example_sources import IdentifiedSource
from retinanet_jax.data.formats.coco_json import check_ground_truth, read_json
from retinanet_jax.data.records import Categories, ImageRecord, instances
from retinanet_jax.data.store.array_record import TfdsSource


def read_truth(path: Path, source: IdentifiedSource, categories: Categories) -> dict:
    """Returns the part of an instances JSON that belongs to a source.

    Raises:
      DataError: the file is invalid, or has other categories or lacks an image of the source.
    """
    content = read_json(path)
    stated = check_ground_truth(content, path)
    if dict(zip(stated.ids, stated.names, strict=True)) != dict(
        zip(categories.ids, categories.names, strict=True)
    ):
        what = f"its categories differ from those of the data: {_differences(stated, categories)}"
        raise DataError("categories", path, "", what, "use the file of this dataset")
    return restrict(content, source, str(path))


def restrict(content: dict, source: IdentifiedSource, origin: str) -> dict:
    """Returns the part of COCO's instances JSON that belongs to the images of a source.

    Annotation ids are renumbered if one of them is 0, which pycocotools reads as "no match".

    Raises:
      DataError: an image of the source is not in the annotations.
    """
    ids = {source.image_id(i) for i in range(len(source))}
    images = [image for image in content["images"] if image["id"] in ids]
    missing = ids - {image["id"] for image in images}
    if missing:
        what = f"lacks {len(missing)} of {len(ids)} images of the split, such as id {min(missing)}"
        fix = "set data.annotations to the file that belongs to data.eval_split"
        raise DataError("annotation file", origin, "", what, fix)
    annotations = [a for a in content["annotations"] if a["image_id"] in ids]
    if any(a["id"] == 0 for a in annotations):
        annotations = [{**a, "id": i} for i, a in enumerate(annotations, 1)]
    return {"images": images, "annotations": annotations, "categories": content["categories"]}


def rebuild(sources: Sequence[TfdsSource], categories: Categories) -> dict:
    """Returns COCO's instances JSON from records: float32 boxes, areas cut to integers by TFDS."""
    numbered = ((source, i) for source in sources for i in range(len(source)))
    return instances((_image_record(source, i, categories) for source, i in numbered), categories)


def _image_record(source: TfdsSource, number: int, categories: Categories) -> ImageRecord:
    record, size = source.record(number), source.image_size(number)
    annotations = tuple(
        dataclasses.replace(a, category_id=categories.ids[a.label])
        for a in source.annotations(record, size)
    )
    file_name = record["image/filename"].decode(errors="replace")
    return ImageRecord(source.image_id(number), file_name, Path(file_name), *size, annotations)


def _differences(stated: Categories, expected: Categories) -> str:
    pairs = set(zip(stated.ids, stated.names, strict=True))
    others = set(zip(expected.ids, expected.names, strict=True))
    if pairs == others:
        return "another order"
    return f"{sorted(pairs - others)[:3]} against {sorted(others - pairs)[:3]}"
