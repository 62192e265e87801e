"""The inspection page: one self-contained HTML page about the data of a config, before training."""

from collections.abc import Sequence

import numpy as np

from retinanet_jax.config.settings import Config
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.mix import load_training_set
from retinanet_jax.data.pipeline.augmentation_config import with_largest_scale
from retinanet_jax.data.pipeline.batch import DroppedBoxes, collate
from retinanet_jax.data.pipeline.canvas import PipelineConfig, canvas_for
from retinanet_jax.data.pipeline.input_pipeline import eval_batches, train_batches
from retinanet_jax.data.pipeline.prefetch import Batches
from retinanet_jax.data.tiled_source import evaluated_tiles
from retinanet_jax.reports.html_page import Html, Section, document, findings_list, join, tag
from retinanet_jax.reports.inspection.anchor_sections import anchors_section, fit_section
from retinanet_jax.reports.inspection.object_sections import (
    class_legend,
    objects_section,
    skipped_section,
)
from retinanet_jax.reports.inspection.page_images import batch_images, first_images
from retinanet_jax.reports.inspection.split_statistics import Split, read_split, reports
from retinanet_jax.training.data_choices import with_data_choices
from retinanet_jax.training.data_findings import (
    class_findings,
    coverage_finding,
    empty_finding,
    max_boxes_finding,
    report_finding,
)
from retinanet_jax.training.finding import Finding

TRAIN_IMAGES, EVAL_IMAGES = 12, 4
DRAWN_IMAGES, DRAWS = 3, 4  # images that are augmented several times, and how often


def inspect_data(config: Config, *, fit: bool = False, max_images: int = 10_000) -> str:
    """Returns the HTML page about both splits of `config.data`.

    Args:
      config: configuration of the run to inspect.
      fit: whether to fit anchors to the data.
      max_images: maximum number of images per split, evenly spread.

    Raises:
      DataError: the data is missing or invalid.
    """
    data = config.data
    train, evaluation = load_training_set(data), load_dataset(data, data.eval_split)
    config, _ = with_data_choices(config, train)
    evaluation = evaluated_tiles(evaluation, data.tile, data.tile_overlap)
    splits = [
        read_split(train.split, train, config, max_images),
        read_split(evaluation.split, evaluation, config, max_images),
    ]
    return render_inspection(splits, config, fit)


def render_inspection(splits: Sequence[Split], config: Config, fit: bool) -> str:
    """The HTML page about a training split and an evaluation split."""
    train = splits[0]
    names = train.dataset.categories.names
    sections = [
        Section("Findings", "findings", findings_list(_findings(splits, config))),
        Section("Input of the network", "images", _images_section(splits, config)),
        Section("Objects", "objects", objects_section(splits, names, config)),
        Section("Anchors", "anchors", anchors_section(train, config)),
    ]
    if fit:
        sections.append(Section("Fitted anchors", "fit", fit_section(train, config)))
    sections.append(Section("Skipped or changed", "skipped", skipped_section(splits)))
    lead = _lead(splits, config)
    return document("Data inspection", train.dataset.name, lead, sections)


def _lead(splits: Sequence[Split], config: Config) -> str:
    pipeline = config.pipeline
    data = " and ".join(split.dataset.name for split in splits)
    classes = splits[0].dataset.categories.num_classes
    counted = f"{classes} {'class' if classes == 1 else 'classes'}"
    sides = f"short side {pipeline.min_side}, long side at most {pipeline.max_side} pixels"
    tiled = "" if config.data.tile is None else " Evaluation also detects in the whole images."
    read = " ".join(
        dict.fromkeys(s.dataset.found.split("\n")[0] + "." for s in splits if s.dataset.found)
    )
    return f"{data}: {counted}. {read} Input of the network: {sides}.{tiled}"


def _findings(splits: Sequence[Split], config: Config) -> list[Finding]:
    train, evaluation = splits
    names = train.dataset.categories.names
    found = [
        *(empty_finding(split.everything, split.name) for split in splits),
        coverage_finding(train.objects, names, config),
        *class_findings(train.objects, evaluation.objects, names, (train.name, evaluation.name)),
        max_boxes_finding(train.everything, config),
        *(report_finding(name, report) for name, report in reports(splits)),
    ]
    return [finding for finding in found if finding is not None]


def _images_section(splits: Sequence[Split], config: Config) -> Html:
    train, evaluation = splits
    names, settings = train.dataset.categories.names, config.pipeline
    train_set = train_batches(
        train.dataset,
        batch_size=TRAIN_IMAGES if config.train.batch_size == "auto" else config.train.batch_size,
        seed=config.seed,
        settings=settings,
        augmentation=config.augmentation,
    )
    eval_set = eval_batches(
        evaluation.dataset, batch_size=config.evaluation.batch_size, settings=settings
    )
    text = (
        "Images and boxes from the input pipeline: augmented, resized and padded. Hover over a box "
        "to see its class."
    )
    return join(
        [
            tag("p", text, class_="soft"),
            class_legend(np.unique(train.everything.labels).tolist(), names),
            tag("h3", "First training batches"),
            tag("div", first_images(train_set, names, TRAIN_IMAGES), class_="images"),
            tag("h3", "The same images in several epochs"),
            _draws(train, train_set, with_largest_scale(settings, config.augmentation)),
            tag("h3", "Evaluation"),
            tag("div", first_images(eval_set, names, EVAL_IMAGES), class_="images"),
        ]
    )


def _draws(split: Split, batches: Batches, settings: PipelineConfig) -> Html:
    """Some images as augmented in the first epochs of training, a row each."""
    with_objects = np.unique(split.everything.image)
    step = max(1, len(with_objects) // DRAWN_IMAGES)
    rows, dropped = [], DroppedBoxes()
    for image in with_objects[::step][:DRAWN_IMAGES]:
        number = int(split.everything.numbers[image])
        examples = [batches.example(number, epoch) for epoch in range(DRAWS)]
        canvas = canvas_for([example.image.shape[:2] for example in examples], settings)
        host = collate(examples, canvas, settings.max_boxes, len(examples), dropped=dropped)
        figures = batch_images(host, split.dataset.categories.names)
        rows.append(tag("div", figures, class_="images draws"))
    return join(rows)
