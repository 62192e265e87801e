"""A dataset of examples made by a function, checked when they are read."""

import functools
from collections.abc import Callable

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.data.example_checks import example_problem
from retinanet_jax.data.example_sources import Annotated, IdentifiedSource
from retinanet_jax.data.pipeline.batch import Example
from retinanet_jax.data.records import Categories, category_entries


class ExampleSource:
    """Random access to `count` examples: source[i] is make(i), called at each access.

    Sizes and objects come from the examples, each of which is made once for this. If that takes
    long, write a source that knows them without decoding (see example_sources.Source).

    Args:
      make: function from an index, 0 to count - 1, to an example; the same one at each call.
      count: number of examples.
      num_classes: labels must be below it; with None, they are not checked.
      name: name of the dataset in errors.
    """

    def __init__(
        self,
        make: Callable[[int], Example],
        count: int,
        num_classes: int | None = None,
        name: str = "examples",
    ):
        self._make, self._count = make, count
        self._num_classes, self._name = num_classes, name
        self._known = functools.cache(lambda index: _without_pixels(self[index]))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < self._count:
            raise IndexError(f"no image {index} of {self._count}")
        example = self._make(index)
        if (problem := example_problem(example, self._num_classes)) is not None:
            raise DataError("example", self._name, f"example {index}", *problem)
        return example

    def image_size(self, index: int) -> tuple[int, int]:
        """Returns (height, width) in pixels."""
        return self._known(index)[0].size

    def annotated(self, index: int) -> Annotated:
        """Returns the objects of an image."""
        return self._known(index)[0]

    def image_id(self, index: int) -> int:
        """Returns the id that the example has."""
        return self._known(index)[1]


def dataset_of(
    make: Callable[[int], Example], count: int, categories: Categories, name: str
) -> Dataset:
    """Returns a Dataset of make(0) to make(count - 1), whose ids must differ; see ExampleSource.

    The dataset is scored against the boxes of the examples; crowds count neither as found nor as
    missed.

    Raises:
      DataError: when an invalid example is read, or when a dataset with two examples of the same id
        is scored.
    """
    return dataset_of_source(
        ExampleSource(make, count, categories.num_classes, name), categories, name
    )


def dataset_of_source(source: IdentifiedSource, categories: Categories, name: str) -> Dataset:
    """Returns a Dataset of a source, scored against the source's own boxes; see dataset_of."""
    truth = functools.cache(lambda: _ground_truth(source, categories, name))
    return Dataset(source, categories, truth, name)


def _without_pixels(example: Example) -> tuple[Annotated, int]:
    size = example.image.shape[:2]
    objects = example.boxes, example.labels, example.crowd, example.areas
    return Annotated(*objects, size), example.image_id


def _ground_truth(source: IdentifiedSource, categories: Categories, name: str) -> dict:
    """COCO's instances JSON."""
    first = {source.image_id(index): index for index in reversed(range(len(source)))}
    images, annotations = [], []
    for index in range(len(source)):
        image_id, (*objects, size) = source.image_id(index), source.annotated(index)
        if first[image_id] != index:
            what = f"has the same id as example {first[image_id]}: {image_id}"
            raise DataError("image id", name, f"example {index}", what, "use the index as the id")
        images.append({"id": image_id, "height": size[0], "width": size[1]})
        for (x1, y1, x2, y2), label, crowd, area in zip(*objects, strict=True):
            entry = {"id": len(annotations) + 1, "image_id": image_id, "iscrowd": int(crowd)}
            entry |= {"bbox": [float(x) for x in (x1, y1, x2 - x1, y2 - y1)], "area": float(area)}
            annotations.append(entry | {"category_id": categories.ids[label]})
    entries = category_entries(categories)
    return {"images": images, "annotations": annotations, "categories": entries}
