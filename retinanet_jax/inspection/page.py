"""One HTML page on the data of a config: self-contained, to be looked at before training."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retinanet_jax.config import Config
from retinanet_jax.data import transforms
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.pipeline import eval_batches, train_batches
from retinanet_jax.data.views import Slice
from retinanet_jax.inspection.coverage import Coverage, best_anchors
from retinanet_jax.inspection.findings import (
    Finding,
    class_findings,
    coverage_finding,
    empty_finding,
    max_boxes_finding,
    report_finding,
)
from retinanet_jax.inspection.fit import fit_anchors
from retinanet_jax.inspection.markup import TIMES, Html, join, tag
from retinanet_jax.inspection.pictures import anchor_crop, batch_pictures
from retinanet_jax.inspection.sections import (
    anchors_section,
    findings_section,
    fit_section,
    legend,
    objects_section,
    report_section,
)
from retinanet_jax.inspection.statistics import Split, read_split

BATCH_PICTURES, EVAL_PICTURES = 12, 4
DRAWN_PICTURES, DRAWS = 3, 4
CROPS = {"uncovered": 12, "between": 6, "positive": 6}


def inspect(config: Config, *, fit: bool = False, max_images: int = 10_000) -> str:
    """The page on both splits of `config.data`.

    Args:
      config: sections data, pipeline, anchors, matching, train and evaluation are read.
      fit: whether anchors are fitted too.
      max_images: of each split so many pictures are counted, evenly spread.

    Raises:
      DataError: data are missing or bad.
    """
    data = config.data
    names = (data.train_split, data.eval_split)
    splits = [read_split(n, load_dataset(data, n), config, max_images) for n in names]
    return render(splits, config, fit)


def render(splits: Sequence[Split], config: Config, fit: bool) -> str:
    """The page on a training and an evaluation split that are read already."""
    train = splits[0]
    names = train.dataset.categories.names
    sections = [
        ("What to know", "findings", findings_section(_findings(splits, config))),
        ("What the network sees", "pictures", _pictures(splits, config)),
        ("Objects", "objects", objects_section(splits, names, config)),
        ("Anchors", "anchors", _anchors(train, config)),
    ]
    if fit:
        sections.append(("Fitted anchors", "fit", _fitted(train, config)))
    sections.append(("Skipped or changed", "report", report_section(splits)))
    title = "A look before training"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{title}: {train.dataset.name}"),
        tag("style", Html(Path(__file__).with_name("page.css").read_text(encoding="utf-8"))),
    )
    body = tag(
        "body",
        tag("h1", title),
        tag("p", _subtitle(splits, config), class_="lead"),
        tag("nav", [tag("a", heading, href=f"#{place}") for heading, place, _ in sections]),
        [[tag("h2", heading, id=place), part] for heading, place, part in sections],
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


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
    findings = [
        *(empty_finding(split.objects, split.name) for split in splits),
        coverage_finding(train.everything, names, config),
        *class_findings(train.objects, evaluation.objects, names, (train.name, evaluation.name)),
        max_boxes_finding(train.everything, config),
        *(report_finding(split.dataset) for split in splits),
    ]
    return [finding for finding in findings if finding is not None]


def _pictures(splits: Sequence[Split], config: Config) -> Html:
    train, evaluation = splits
    dataset, names = train.dataset, train.dataset.categories.names
    settings = dict(settings=config.pipeline)
    batches = train_batches(
        dataset, batch_size=config.train.batch_size, seed=config.seed, **settings
    )
    judged = eval_batches(evaluation.dataset, batch_size=config.evaluation.batch_size, **settings)
    present = np.unique(train.objects.labels).tolist()
    return join(
        [
            tag(
                "p",
                "Augmented, resized and padded by the pipeline itself, boxes and all. Where "
                "names would hide each other, the pointer tells them.",
                class_="soft",
            ),
            legend(present, names),
            tag("h3", "The first batches of training"),
            tag("div", batch_pictures(batches, names, BATCH_PICTURES), class_="pictures"),
            tag("h3", "One picture, drawn again and again"),
            _draws(train, config),
            tag("h3", "Evaluation"),
            tag("div", batch_pictures(judged, names, EVAL_PICTURES), class_="pictures"),
        ]
    )


def _draws(split: Split, config: Config) -> Html:
    """Some pictures in several epochs, a line each."""
    with_objects = np.unique(split.everything.image)
    step = max(1, len(with_objects) // DRAWN_PICTURES)
    lines = []
    for seed, image in enumerate(with_objects[::step][:DRAWN_PICTURES], config.seed):
        number = int(split.everything.numbers[image])
        alone = Slice(split.dataset.source, range(number, number + 1))
        # Of a data set of one picture every step is an epoch.
        epochs = train_batches(
            dataclasses.replace(split.dataset, source=alone),
            batch_size=1,
            seed=seed,
            settings=config.pipeline,
        )
        figures = batch_pictures(epochs, split.dataset.categories.names, DRAWS)
        lines.append(tag("div", figures, class_="pictures draws"))
    return join(lines)


def _anchors(split: Split, config: Config) -> Html:
    if not len(split.objects.labels):
        return tag("p", "There is no object that anchors could cover.")
    low, high = config.matching.negative_iou, config.matching.positive_iou
    headings = {
        "uncovered": f"Worst covered: best IoU below {low:g}",
        "between": f"In between: {low:g} to {high:g}",
        "positive": f"Well covered: {high:g} and more",
    }
    parts = []
    for state, places in _examples(split, config).items():
        if len(places):
            crops = [_crop(split, place, config) for place in places.tolist()]
            parts += [tag("h3", headings[state]), tag("div", crops, class_="pictures crops")]
    explained = (
        f"Boxes of {split.name} as the network sees them, without random augmentation; crowds do "
        "not count. In the pictures the best anchor of all is dashed."
    )
    return join([tag("p", explained, class_="soft"), anchors_section(split, config), *parts])


def _examples(split: Split, config: Config) -> dict[str, np.ndarray]:
    """Boxes to show: the worst, at most one of a picture; of the others some of all grades."""
    iou = split.coverage.iou
    order = np.argsort(iou, kind="stable")
    uncovered = split.coverage.uncovered(config.matching)[order]
    positive = split.coverage.positive(config.matching)[order]
    worst = order[uncovered]
    _, first = np.unique(split.objects.image[worst], return_index=True)
    chosen = {"uncovered": worst[np.sort(first)][: CROPS["uncovered"]]}
    for state, mask in (("between", ~uncovered & ~positive), ("positive", positive)):
        some = order[mask]
        step = max(1, len(some) // CROPS[state])
        chosen[state] = some[::step][: CROPS[state]]
    return chosen


def _crop(split: Split, place: int, config: Config) -> Html:
    image = split.objects.image[place]
    example = split.dataset.source[int(split.objects.numbers[image])]
    height, width = split.fitted.sizes[image].tolist()
    picture = transforms.resize(example, (height, width)).image
    here = slice(place, place + 1)
    box = split.fitted.boxes[here]
    found = Coverage(*(part[here] for part in split.coverage))
    canvas = tuple(split.canvases[place].tolist())
    anchor = best_anchors(box, canvas, found, config.anchors)[0]
    label, names = int(split.objects.labels[place]), split.dataset.categories.names
    crop = anchor_crop(picture, box[0], label, anchor, names)
    x1, y1, x2, y2 = box[0].tolist()
    level = config.anchors.levels[found.level[0]]
    size = f"{x2 - x1:.0f}{TIMES}{y2 - y1:.0f} px"
    text = (
        f"{names[label]} · {size} · IoU {found.iou[0]:.2f} on P{level} · image {example.image_id}"
    )
    return tag("figure", crop, tag("figcaption", text))


def _fitted(split: Split, config: Config) -> Html:
    if len(np.unique(split.objects.image)) < 2:
        return tag("p", "There are too few pictures with objects to fit anchors to.")
    return fit_section(fit_anchors(split.everything, config), config)
