"""One HTML page on the data of a config: self-contained, to be looked at before training."""

from collections.abc import Sequence

import numpy as np

from retinanet_jax.config.settings import Config
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.mix import load_training_set
from retinanet_jax.data.pipeline.augmentation import with_largest_scale
from retinanet_jax.data.pipeline.batch import collate
from retinanet_jax.data.pipeline.batches import eval_batches, train_batches
from retinanet_jax.data.pipeline.canvas import PipelineConfig, canvas_for
from retinanet_jax.data.pipeline.stream import Batches
from retinanet_jax.reports.html.document import Section, document, findings_list
from retinanet_jax.reports.html.markup import Html, join, tag
from retinanet_jax.reports.inspection.anchor_sections import anchors_section, fit_section
from retinanet_jax.reports.inspection.inspection_images import batch_images, first_images
from retinanet_jax.reports.inspection.inspection_sections import (
    legend,
    objects_section,
    report_section,
)
from retinanet_jax.reports.inspection.split_statistics import Split, read_split, reports
from retinanet_jax.training.data_findings import (
    Finding,
    class_findings,
    coverage_finding,
    empty_finding,
    max_boxes_finding,
    report_finding,
)

BATCH_IMAGES, EVAL_IMAGES = 12, 4
DRAWN_IMAGES, DRAWS = 3, 4


def inspect_data(config: Config, *, fit: bool = False, max_images: int = 10_000) -> str:
    """The page on both splits of `config.data`.

    Args:
      config: sections data, pipeline, anchors, matching, train and evaluation are read.
      fit: whether anchors are fitted too.
      max_images: of each split so many images are counted, evenly spread.

    Raises:
      DataError: data are missing or bad.
    """
    data = config.data
    train, evaluation = load_training_set(data), load_dataset(data, data.eval_split)
    splits = [
        read_split(data.train_split, train, config, max_images),
        read_split(data.eval_split, evaluation, config, max_images),
    ]
    return render(splits, config, fit)


def render(splits: Sequence[Split], config: Config, fit: bool) -> str:
    """The page on a training and an evaluation split that are read already."""
    train = splits[0]
    names = train.dataset.categories.names
    sections = [
        Section("What to know", "findings", findings_list(_findings(splits, config))),
        Section("What the network sees", "images", _images_section(splits, config)),
        Section("Objects", "objects", objects_section(splits, names, config)),
        Section("Anchors", "anchors", anchors_section(train, config)),
    ]
    if fit:
        sections.append(Section("Fitted anchors", "fit", fit_section(train, config)))
    sections.append(Section("Skipped or changed", "report", report_section(splits)))
    subtitle = _subtitle(splits, config)
    return document("A look before training", train.dataset.name, subtitle, sections)


def _subtitle(splits: Sequence[Split], config: Config) -> str:
    pipeline = config.pipeline
    data = " and ".join(split.dataset.name for split in splits)
    sides = f"short side {pipeline.min_side}, long side at most {pipeline.max_side} pixels"
    classes = splits[0].dataset.categories.num_classes
    counted = f"{classes} {'class' if classes == 1 else 'classes'}"
    return f"{data}; {counted}; the network's input: {sides}."


def _findings(splits: Sequence[Split], config: Config) -> list[Finding]:
    train, evaluation = splits
    names = train.dataset.categories.names
    found = [
        *(empty_finding(split.objects, split.name) for split in splits),
        coverage_finding(train.objects, names, config),
        *class_findings(train.objects, evaluation.objects, names, (train.name, evaluation.name)),
        max_boxes_finding(train.everything, config),
        *(report_finding(name, report) for name, report in reports(splits)),
    ]
    return [finding for finding in found if finding is not None]


def _images_section(splits: Sequence[Split], config: Config) -> Html:
    train, evaluation = splits
    names, settings = train.dataset.categories.names, config.pipeline
    trained = train_batches(
        train.dataset,
        batch_size=config.train.batch_size,
        seed=config.seed,
        settings=settings,
        augmentation=config.augmentation,
    )
    judged = eval_batches(
        evaluation.dataset, batch_size=config.evaluation.batch_size, settings=settings
    )
    explained = (
        "Augmented, resized and padded by the pipeline itself, boxes and all. Where names would "
        "hide each other, the pointer tells them."
    )
    return join(
        [
            tag("p", explained, class_="soft"),
            legend(np.unique(train.everything.labels).tolist(), names),
            tag("h3", "The first batches of training"),
            tag("div", first_images(trained, names, BATCH_IMAGES), class_="images"),
            tag("h3", "One image, drawn again and again"),
            _draws(train, trained, with_largest_scale(settings, config.augmentation)),
            tag("h3", "Evaluation"),
            tag("div", first_images(judged, names, EVAL_IMAGES), class_="images"),
        ]
    )


def _draws(split: Split, batches: Batches, settings: PipelineConfig) -> Html:
    """Some images as the first epochs of training have them, a line each."""
    with_objects = np.unique(split.everything.image)
    step = max(1, len(with_objects) // DRAWN_IMAGES)
    lines = []
    for image in with_objects[::step][:DRAWN_IMAGES]:
        number = int(split.everything.numbers[image])
        examples = [batches.example(number, epoch) for epoch in range(DRAWS)]
        canvas = canvas_for([example.image.shape[:2] for example in examples], settings)
        host = collate(examples, canvas, settings.max_boxes, len(examples))
        figures = batch_images(host, split.dataset.categories.names)
        lines.append(tag("div", figures, class_="images draws"))
    return join(lines)
