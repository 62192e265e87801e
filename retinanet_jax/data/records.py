"""Annotations after reading, the same for all formats: categories, images and their objects."""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from retinanet_jax.data.archives import AnyPath


@dataclasses.dataclass(frozen=True)
class Categories:
    """Names and ids of the categories, both in the order of the labels."""

    names: tuple[str, ...]
    ids: tuple[int, ...]

    @property
    def num_classes(self) -> int:
        """Number of categories; labels are 0 .. num_classes - 1."""
        return len(self.names)

    def label_of(self, category_id: int) -> int:
        """Returns the label of a category id; KeyError for an unknown id."""
        try:
            return self.ids.index(category_id)
        except ValueError:
            raise KeyError(f"category id {category_id} is not one of {self.ids}") from None

    def id_of(self, label: int) -> int:
        """Returns the category id of a label; IndexError for a label out of range."""
        if not 0 <= label < len(self.ids):
            raise IndexError(f"label {label} is not in 0 .. {len(self.ids) - 1}")
        return self.ids[label]


@dataclasses.dataclass(frozen=True, slots=True)
class Annotation:
    """One object: `bbox` is x, y, width, height in pixels, `area` in square pixels."""

    id: int
    label: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    crowd: bool


@dataclasses.dataclass(frozen=True)
class ImageRecord:
    """One image and its objects.

    Attributes:
      id: image id, unique in its split.
      file_name: file name as annotated.
      path: path of the file.
      height, width: size in pixels, after the rotation by `orientation`.
      annotations: objects of the image.
      orientation: EXIF orientation by which the decoded pixels are rotated; 1 keeps them.
    """

    id: int
    file_name: str
    path: AnyPath
    height: int
    width: int
    annotations: tuple[Annotation, ...] = ()
    orientation: int = 1

    def boxes(self) -> Float[np.ndarray, "m 4"]:
        """Returns the objects' boxes, xyxy in pixels, clipped to the image; float64."""
        xywh = np.array([a.bbox for a in self.annotations], np.float64).reshape(-1, 4)
        corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        return np.clip(corners, 0, [self.width, self.height] * 2)

    def labels(self) -> Int[np.ndarray, " m"]:
        """Returns the objects' labels, int32."""
        return np.array([a.label for a in self.annotations], np.int32)

    def crowd(self) -> Bool[np.ndarray, " m"]:
        """True where a box is a region of many objects."""
        return np.array([a.crowd for a in self.annotations], bool)


def instances(images: Iterable[ImageRecord], categories: Categories) -> dict:
    """Returns COCO's instances JSON of some images: `images`, `annotations`, `categories`."""
    images = list(images)
    return {
        "images": [_image_entry(image) for image in images],
        "annotations": [entry for image in images for entry in _annotation_entries(image)],
        "categories": category_entries(categories),
    }


def write_instances(path: Path, images: list[ImageRecord], categories: Categories) -> None:
    """Writes COCO's instances JSON entry by entry: there may be a million of them."""
    annotations = (entry for image in images for entry in _annotation_entries(image))
    lists = {
        "images": map(_image_entry, images),
        "annotations": annotations,
        "categories": category_entries(categories),
    }
    with path.open("w", encoding="utf-8") as file:
        for name, entries in lists.items():
            file.write("," if name != "images" else "{")
            file.write(f'"{name}": [')
            for place, entry in enumerate(entries):
                file.write(("," if place else "") + json.dumps(entry))
            file.write("]")
        file.write("}")


def _image_entry(image: ImageRecord) -> dict:
    return {field: getattr(image, field) for field in ("id", "file_name", "height", "width")}


def _annotation_entries(image: ImageRecord) -> Iterator[dict]:
    for a in image.annotations:
        yield {
            "id": a.id,
            "image_id": image.id,
            "category_id": a.category_id,
            "bbox": list(a.bbox),
            "area": a.area,
            "iscrowd": int(a.crowd),
        }


def category_entries(categories: Categories) -> list[dict]:
    """Returns the list `categories` of COCO's instances JSON."""
    return [{"id": i, "name": n} for i, n in zip(categories.ids, categories.names, strict=True)]
