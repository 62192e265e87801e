"""One small dataset, written in every layout that data.root may point to.

Each writer takes a folder and the splits; it writes images of noise, equal in all layouts, and the
annotations as the tool of that name does.
"""

import csv
import json
import struct
import urllib.parse
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape, quoteattr

import cv2
import numpy as np
import pytest

from retinanet_jax.data.record_files import masked_crc32c


class Box(NamedTuple):
    """One object: its class; x, y, width, height in pixels."""

    name: str
    x: float
    y: float
    width: float
    height: float


class Annotated(NamedTuple):
    """One image, by the name of its file."""

    file_name: str
    width: int
    height: int
    boxes: tuple[Box, ...] = ()


Splits = dict[str, list[Annotated]]

SMALL: Splits = {
    "train": [
        Annotated("a.png", 64, 48, (Box("cat", 4, 6, 20, 12), Box("dog", 30, 8, 25, 40))),
        Annotated("b 1.png", 48, 64, (Box("dog", 0, 0, 48, 64),)),
        Annotated("c.png", 64, 64),
    ],
    "val": [Annotated("d.png", 64, 48, (Box("cat", 10, 10, 30, 30),))],
}


def class_names(splits: Splits) -> list[str]:
    """The names that occur, in alphabetical order."""
    return sorted({box.name for images in splits.values() for im in images for box in im.boxes})


def image_bytes(image: Annotated) -> bytes:
    """A PNG of noise whose seed is the image's name."""
    generator = np.random.default_rng(zlib.crc32(image.file_name.encode()))
    pixels = generator.integers(0, 256, (image.height, image.width, 3), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def write_image(folder: Path, image: Annotated) -> Path:
    """The file of an image."""
    path = folder / image.file_name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image_bytes(image))
    return path


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def yolo_line(image: Annotated, box: Box, names: list[str]) -> str:
    """`class x y width height`, each number such that it reads back as the same float."""
    shares = (
        (box.x + box.width / 2) / image.width,
        (box.y + box.height / 2) / image.height,
        box.width / image.width,
        box.height / image.height,
    )
    return " ".join([str(names.index(box.name)), *map(repr, map(float, shares))])


def _yolo_labels(folder: Path, image: Annotated, names: list[str]) -> None:
    lines = [yolo_line(image, box, names) + "\n" for box in image.boxes]
    _write((folder / image.file_name).with_suffix(".txt"), "".join(lines))


def write_yolo(root: Path, splits: Splits) -> None:
    """data.yaml, images/<split>, labels/<split>: Ultralytics."""
    names = class_names(splits)
    for split, images in splits.items():
        for image in images:
            write_image(root / "images" / split, image)
            _yolo_labels(root / "labels" / split, image, names)
    entries = [f"{split}: images/{split}" for split in splits]
    listed = [f"  {number}: {json.dumps(name)}" for number, name in enumerate(names)]
    _write(root / "data.yaml", "\n".join([f"path: {root}", *entries, "names:", *listed, ""]))


def write_yolo_roboflow(root: Path, splits: Splits) -> None:
    """data.yaml with '../train/images', <split>/images, <split>/labels."""
    names, folders = class_names(splits), {"val": "valid"}
    for split, images in splits.items():
        for image in images:
            folder = root / folders.get(split, split)
            write_image(folder / "images", image)
            _yolo_labels(folder / "labels", image, names)
    entries = [f"{split}: ../{folders.get(split, split)}/images" for split in splits]
    text = [*entries, "", f"nc: {len(names)}", f"names: {json.dumps(names)}", "", "roboflow:"]
    _write(root / "data.yaml", "\n".join([*text, "  version: 1", ""]))


def write_yolo_darknet(root: Path, splits: Splits) -> None:
    """obj.data, obj.names, lists of images with 'data/' in front: CVAT's YOLO 1.1."""
    names, keys = class_names(splits), {"val": "valid"}
    data = [f"classes = {len(names)}"]
    for split, images in splits.items():
        key = keys.get(split, split)
        folder = f"obj_{key}_data"
        for image in images:
            write_image(root / folder, image)
            _yolo_labels(root / folder, image, names)
        lines = [f"data/{folder}/{image.file_name}\n" for image in images]
        _write(root / f"{key}.txt", "".join(lines))
        data.append(f"{key} = data/{key}.txt")
    _write(root / "obj.names", "".join(f"{name}\n" for name in names))
    _write(root / "obj.data", "\n".join([*data, "names = data/obj.names", "backup = backup/", ""]))


def voc_xml(image: Annotated, objects: str | None = None) -> str:
    """The annotation of an image as labelImg writes it."""
    if objects is None:
        objects = "".join(map(_voc_object, image.boxes))
    return (
        "<annotation>\n\t<folder>images</folder>\n"
        f"\t<filename>{escape(Path(image.file_name).name)}</filename>\n"
        f"\t<size><width>{image.width}</width><height>{image.height}</height>"
        "<depth>3</depth></size>\n\t<segmented>0</segmented>\n"
        f"{objects}</annotation>\n"
    )


def _voc_object(box: Box) -> str:
    corners = box.x, box.y, box.x + box.width, box.y + box.height
    sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    inner = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return (
        f"\t<object><name>{escape(box.name)}</name><pose>Unspecified</pose>"
        f"<truncated>0</truncated><difficult>0</difficult><bndbox>{inner}</bndbox></object>\n"
    )


def write_voc(root: Path, splits: Splits) -> None:
    """Annotations/, JPEGImages/, ImageSets/Main/<split>.txt."""
    for split, images in splits.items():
        for image in images:
            write_image(root / "JPEGImages", image)
            stem = Path(image.file_name).with_suffix("")
            _write(root / "Annotations" / f"{stem}.xml", voc_xml(image))
        lines = [f"{Path(image.file_name).with_suffix('')}\n" for image in images]
        _write(root / "ImageSets" / "Main" / f"{split}.txt", "".join(lines))


def write_voc_beside(root: Path, splits: Splits) -> None:
    """<split>/ with XML beside the images: labelImg, Roboflow."""
    for split, images in splits.items():
        for image in images:
            path = write_image(root / split, image)
            _write(path.with_suffix(".xml"), voc_xml(image))


def write_labelme(root: Path, splits: Splits) -> None:
    """<split>/ with labelme's JSON beside the images."""
    for split, images in splits.items():
        for image in images:
            path = write_image(root / split, image)
            _write(path.with_suffix(".json"), json.dumps(labelme_json(image)))


def labelme_json(image: Annotated) -> dict:
    """labelme's JSON of an image, with rectangles."""
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": [
            {
                "label": box.name,
                "points": [[box.x, box.y], [box.x + box.width, box.y + box.height]],
                "group_id": None,
                "description": "",
                "shape_type": "rectangle",
                "flags": {},
            }
            for box in image.boxes
        ],
        "imagePath": Path(image.file_name).name,
        "imageData": None,
        "imageHeight": image.height,
        "imageWidth": image.width,
    }


def write_csv(root: Path, splits: Splits) -> None:
    """<split>_labels.csv with a header, as TensorFlow's tutorials have it; images/<split>.

    Only annotated images are in it.
    """
    header = ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]
    for split, images in splits.items():
        rows = [header]
        for image in images:
            write_image(root / "images" / split, image)
            for b in image.boxes:
                size = [image.file_name, image.width, image.height]
                rows.append([*size, b.name, b.x, b.y, b.x + b.width, b.y + b.height])
        _write_rows(root / f"{split}_labels.csv", rows)


def write_csv_keras(root: Path, splits: Splits) -> None:
    """<split>.csv without a header, classes.csv: keras-retinanet; a line for an empty image."""
    for split, images in splits.items():
        rows = []
        for image in images:
            write_image(root / split, image)
            name = f"{split}/{image.file_name}"
            for b in image.boxes:
                rows.append([name, b.x, b.y, b.x + b.width, b.y + b.height, b.name])
            if not image.boxes:
                rows.append([name, "", "", "", "", ""])
        _write_rows(root / f"{split}.csv", rows)
    _write_rows(root / "classes.csv", [[n, i] for i, n in enumerate(class_names(splits))])


def _write_rows(path: Path, rows: list[list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def write_imagefolder(root: Path, splits: Splits) -> None:
    """<split>/metadata.jsonl beside the images: Hugging Face."""
    for split, images in splits.items():
        lines = []
        for image in images:
            write_image(root / split, image)
            boxes = [[b.x, b.y, b.width, b.height] for b in image.boxes]
            objects = {"bbox": boxes, "categories": [b.name for b in image.boxes]}
            lines.append(json.dumps({"file_name": image.file_name, "objects": objects}) + "\n")
        _write(root / split / "metadata.jsonl", "".join(lines))


def write_via(root: Path, splits: Splits) -> None:
    """<split>/via_region_data.json beside the images: VGG Image Annotator."""
    for split, images in splits.items():
        for image in images:
            write_image(root / split, image)
        _write(root / split / "via_region_data.json", json.dumps(via_json(images)))


def via_json(images: list[Annotated]) -> dict:
    """The JSON of VGG Image Annotator 2."""
    return {
        f"{image.file_name}123": {
            "filename": image.file_name,
            "size": 123,
            "regions": [via_region(box) for box in image.boxes],
            "file_attributes": {},
        }
        for image in images
    }


def via_region(box: Box) -> dict:
    """A rectangle of VGG Image Annotator, its class in the attribute 'class'."""
    sides = {"x": box.x, "y": box.y, "width": box.width, "height": box.height}
    return {
        "shape_attributes": {"name": "rect", **sides},
        "region_attributes": {"class": box.name},
    }


def write_via3(root: Path, splits: Splits) -> None:
    """<split>/project.json beside the images: VGG Image Annotator 3."""
    names = class_names(splits)
    for split, images in splits.items():
        for image in images:
            write_image(root / split, image)
        _write(root / split / "project.json", json.dumps(via3_json(images, names)))


def via3_json(images: list[Annotated], names: list[str]) -> dict:
    """The project of VGG Image Annotator 3, the class a list to choose from."""
    ids = [str(number) for number in range(1, len(images) + 1)]
    shapes = [
        {
            "vid": number,
            "flg": 0,
            "z": [],
            "xy": [2, b.x, b.y, b.width, b.height],
            "av": {"1": str(names.index(b.name))},
        }
        for number, image in zip(ids, images, strict=True)
        for b in image.boxes
    ]
    options = {str(number): name for number, name in enumerate(names)}
    attribute = {"aname": "class", "anchor_id": "FILE1_Z0_XY1", "type": 4, "options": options}
    return {
        "project": {"pid": "__VIA_PROJECT_ID__", "pname": "cells", "vid_list": ids},
        "config": {},
        "attribute": {"1": attribute},
        "file": {
            number: {"fid": number, "fname": image.file_name, "type": 2, "loc": 1, "src": ""}
            for number, image in zip(ids, images, strict=True)
        },
        "view": {number: {"fid_list": [number]} for number in ids},
        "metadata": {f"1_{number:08}": shape for number, shape in enumerate(shapes)},
    }


def write_createml(root: Path, splits: Splits) -> None:
    """<split>/_annotations.createml.json beside the images: Roboflow."""
    for split, images in splits.items():
        for image in images:
            write_image(root / split, image)
        content = [
            {
                "image": image.file_name,
                "annotations": [
                    {"label": b.name, "coordinates": createml_coordinates(b)} for b in image.boxes
                ],
            }
            for image in images
        ]
        _write(root / split / "_annotations.createml.json", json.dumps(content))


def createml_coordinates(box: Box) -> dict:
    """The center and size of a box."""
    center = {"x": box.x + box.width / 2, "y": box.y + box.height / 2}
    return {**center, "width": box.width, "height": box.height}


def write_bdd100k(root: Path, splits: Splits) -> None:
    """labels/det_20/det_<split>.json, images/100k/<split>: BDD100K."""
    for split, images in splits.items():
        for image in images:
            write_image(root / "images" / "100k" / split, image)
        frames = [
            {"name": image.file_name, "attributes": {}, "labels": list(map(scalabel, image.boxes))}
            for image in images
        ]
        _write(root / "labels" / "det_20" / f"det_{split}.json", json.dumps(frames))


def scalabel(b: Box) -> dict:
    """A label of Scalabel; its corners are pixels that belong to the box."""
    corners = {"x1": b.x, "y1": b.y, "x2": b.x + b.width - 1, "y2": b.y + b.height - 1}
    return {"id": "1", "category": b.name, "attributes": {"occluded": False}, "box2d": corners}


def write_label_studio(root: Path, splits: Splits) -> None:
    """<split>.json with tasks, images in <split>/."""
    for split, images in splits.items():
        for image in images:
            write_image(root / split, image)
        tasks = [label_studio_task(image, number) for number, image in enumerate(images)]
        _write(root / f"{split}.json", json.dumps(tasks))


def label_studio_task(image: Annotated, number: int = 1) -> dict:
    """A task of Label Studio with one annotation."""
    results = [label_studio_result(image, box) for box in image.boxes]
    name = urllib.parse.quote(image.file_name)
    return {
        "id": number,
        "annotations": [{"id": number, "was_cancelled": False, "result": results}],
        "predictions": [],
        "data": {"image": f"/data/upload/1/0a1b2c3d-{name}"},
    }


def label_studio_result(image: Annotated, box: Box, **value) -> dict:
    """A rectangle of Label Studio; `value` adds to it or replaces its fields."""
    percent = {
        "x": 100 * box.x / image.width,
        "y": 100 * box.y / image.height,
        "width": 100 * box.width / image.width,
        "height": 100 * box.height / image.height,
    }
    return {
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": image.width,
        "original_height": image.height,
        "image_rotation": 0,
        "value": {**percent, "rotation": 0, "rectanglelabels": [box.name], **value},
    }


def write_labelbox(root: Path, splits: Splits) -> None:
    """<split>.ndjson with data rows, images in <split>/: export v2."""
    for split, images in splits.items():
        for image in images:
            write_image(root / split, image)
        lines = [json.dumps(labelbox_row(image)) + "\n" for image in images]
        _write(root / f"{split}.ndjson", "".join(lines))


def labelbox_row(image: Annotated, *labels: dict) -> dict:
    """A data row of Labelbox's export v2, with one label of its boxes if none is given."""
    address = f"https://storage.example/ck1/{urllib.parse.quote(image.file_name)}?Expires=1"
    key = f"ck{zlib.crc32(image.file_name.encode())}"
    names = {"id": f"{key}1", "global_key": f"{key}2", "external_id": image.file_name}
    return {
        "data_row": {**names, "row_data": address},
        "media_attributes": {
            "height": image.height,
            "width": image.width,
            "mime_type": "image/png",
        },
        "projects": {
            "ck4": {
                "name": "cells",
                "labels": list(labels) or [labelbox_label(*map(labelbox_object, image.boxes))],
                "project_details": {"workflow_status": "DONE"},
            }
        },
    }


def labelbox_label(*objects: dict, **fields) -> dict:
    """A label with some objects; `fields` are added to it."""
    annotations = {"objects": list(objects), "classifications": [], "relationships": []}
    return {"label_kind": "Default", "id": "ck5", "annotations": annotations, **fields}


def labelbox_object(box: Box) -> dict:
    """A bounding box of export v2."""
    sides = {"top": box.y, "left": box.x, "height": box.height, "width": box.width}
    kind = {"annotation_kind": "ImageBoundingBox", "classifications": []}
    return {"name": box.name, "value": box.name.lower(), **kind, "bounding_box": sides}


def write_darwin(root: Path, splits: Splits) -> None:
    """images/<split>, releases/latest with annotations/ and lists/default/, as darwin-py pulls."""
    release = root / "releases" / "latest"
    for split, images in splits.items():
        lines = []
        for image in images:
            write_image(root / "images" / split, image)
            path = release / "annotations" / f"{Path(image.file_name).stem}.json"
            _write(path, json.dumps(darwin_json(image, folder=f"/{split}")))
            lines.append(f"/home/me/.darwin/datasets/v7/cells/releases/{path.relative_to(root)}\n")
        _write(release / "lists" / "default" / f"random_{split}.txt", "".join(lines))


def darwin_json(image: Annotated, *annotations: dict, folder: str = "/", **slot) -> dict:
    """Darwin JSON 2.0 of an image; `slot` adds to its slot or replaces its fields."""
    stated = {"type": "image", "slot_name": "0", "width": image.width, "height": image.height}
    sources = [{"file_name": image.file_name, "url": "https://darwin.example/uploads/1"}]
    return {
        "version": "2.0",
        "schema_ref": "https://darwin.example/darwin_json/2.0/schema.json",
        "item": {
            "name": image.file_name,
            "path": folder,
            "source_info": {"item_id": "1", "dataset": {"name": "cells", "slug": "cells"}},
            "slots": [{**stated, "source_files": sources, **slot}],
        },
        "annotations": list(annotations) or list(map(darwin_box, image.boxes)),
    }


def darwin_box(box: Box) -> dict:
    """A bounding box of Darwin JSON."""
    sides = {"h": box.height, "w": box.width, "x": box.x, "y": box.y}
    return {"bounding_box": sides, "id": "2", "name": box.name, "slot_names": ["0"]}


def write_cvat(root: Path, splits: Splits) -> None:
    """annotations.xml of a project with subsets, images/<subset>: CVAT for images 1.1."""
    images = []
    for split, annotated in splits.items():
        for image in annotated:
            write_image(root / "images" / split, image)
            images.append(cvat_image(image, "".join(map(_cvat_box, image.boxes)), subset=split))
    _write(root / "annotations.xml", cvat_xml(class_names(splits), images))


def cvat_xml(names: list[str], images: list[str]) -> str:
    """CVAT's XML of some <image>."""
    meta = f"<meta><project>{cvat_labels(names)}</project></meta>"
    body = "<version>1.1</version>" + meta + "\n".join(images)
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{body}</annotations>'


def cvat_image(image: Annotated, shapes: str, **attributes: str) -> str:
    """An <image> of CVAT's XML."""
    stated = {"name": image.file_name, "width": image.width, "height": image.height, **attributes}
    listed = "".join(f" {key}={quoteattr(str(value))}" for key, value in stated.items())
    return f'<image id="0"{listed}>{shapes}</image>'


def _cvat_box(b: Box) -> str:
    corners = zip(
        ("xtl", "ytl", "xbr", "ybr"), (b.x, b.y, b.x + b.width, b.y + b.height), strict=True
    )
    sides = "".join(f' {side}="{value}"' for side, value in corners)
    return f'<box label={quoteattr(b.name)} source="manual" occluded="0"{sides} z_order="0"></box>'


def write_cvat_video(root: Path, splits: Splits) -> None:
    """annotations.xml of a project with tracks, images/<subset>/frame_N: CVAT for video 1.1.

    Each image is a frame, and each box is a track that ends after it.
    """
    tracks, tasks = [], []
    for split, images in splits.items():
        last = len(images) - 1
        for number, image in enumerate(images):
            path = write_image(root / "images" / split, image)
            path.rename(path.with_name(f"frame_{number:06d}.PNG"))
            for box in image.boxes:
                shapes = cvat_tracked(box, number)
                shapes += cvat_tracked(box, number + 1, outside=1) if number < last else ""
                tracks.append(cvat_track(box.name, shapes, subset=split))
        tasks.append(cvat_task(range(len(images)), subset=split))
    labels = cvat_labels(class_names(splits))
    meta = f"<project><tasks>{''.join(tasks)}</tasks>{labels}</project>"
    _write(root / "annotations.xml", cvat_video_xml(meta, tracks))


def cvat_labels(names: list[str]) -> str:
    """The list of labels of CVAT's XML."""
    listed = "".join(f"<label><name>{escape(name)}</name></label>" for name in names)
    return f"<labels>{listed}</labels>"


def cvat_task(frames: range, more: str = "", mode: str = "interpolation", subset="default") -> str:
    """The <task> of a video or of images; `more` is added to it."""
    stated = {
        "size": len(frames),
        "mode": mode,
        "subset": subset,
        "start_frame": frames[0],
        "stop_frame": frames[-1],
        "frame_filter": f"step={frames.step}" if frames.step > 1 else "",
    }
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in stated.items())
    return f"<task><id>1</id>{inner}{more}</task>"


def cvat_video_xml(meta: str, tracks: list[str]) -> str:
    """CVAT's XML of some <track>."""
    body = f"<version>1.1</version><meta>{meta}</meta>" + "\n".join(tracks)
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{body}</annotations>'


def cvat_track(label: str, shapes: str, **attributes: str) -> str:
    """A <track> of CVAT's XML."""
    listed = "".join(f" {key}={quoteattr(value)}" for key, value in attributes.items())
    return f'<track id="0" label={quoteattr(label)} source="manual"{listed}>{shapes}</track>'


def cvat_tracked(b: Box, frame: int, outside: int = 0) -> str:
    """The box of a track in a frame."""
    sides = f'xtl="{b.x}" ytl="{b.y}" xbr="{b.x + b.width}" ybr="{b.y + b.height}"'
    state = f'keyframe="0" outside="{outside}" occluded="0"'
    return f'<box frame="{frame}" {state} {sides} z_order="0"></box>'


def write_datumaro(root: Path, splits: Splits) -> None:
    """annotations/<split>.json, images/<split>."""
    names = class_names(splits)
    for split, images in splits.items():
        items = []
        for image in images:
            write_image(root / "images" / split, image)
            found = [datumaro_box(box, names.index(box.name)) for box in image.boxes]
            items.append(datumaro_item(image, found))
        _write(root / "annotations" / f"{split}.json", json.dumps(datumaro_json(items, names)))


def datumaro_json(items: list[dict], names: list[str]) -> dict:
    """Datumaro's JSON of some items."""
    labels = [{"name": name, "parent": "", "attributes": []} for name in names]
    return {
        "dm_format_version": "1.0",
        "media_type": 2,
        "infos": {},
        "categories": {"label": {"labels": labels, "label_groups": [], "attributes": []}},
        "items": items,
    }


def datumaro_item(image: Annotated, annotations: list[dict]) -> dict:
    """An image of Datumaro's JSON."""
    return {
        "id": Path(image.file_name).stem,
        "annotations": annotations,
        "image": {"path": image.file_name, "size": [image.height, image.width]},
    }


def datumaro_box(box: Box, label_id: int, **fields) -> dict:
    """A box of Datumaro's JSON; `fields` adds to it or replaces its fields."""
    stated = {"id": 0, "type": "bbox", "attributes": {}, "group": 0, "label_id": label_id}
    return {**stated, "z_order": 0, "bbox": [box.x, box.y, box.width, box.height], **fields}


def write_kitti(root: Path, splits: Splits) -> None:
    """<split>/image_2, <split>/label_2; class names are words without spaces."""
    for split, images in splits.items():
        for image in images:
            write_image(root / split / "image_2", image)
            lines = [
                f"{b.name} 0.00 0 -1.57 {b.x} {b.y} {b.x + b.width} "
                f"{b.y + b.height} 1.5 1.6 3.9 1.8 1.4 8.4 0.01\n"
                for b in image.boxes
            ]
            _write((root / split / "label_2" / image.file_name).with_suffix(".txt"), "".join(lines))


def write_visdrone(root: Path, splits: Splits) -> None:
    """VisDrone2019-DET-<split>/ with images/ and annotations/; the first class is car, then van."""
    names = class_names(splits)
    for split, images in splits.items():
        folder = root / f"VisDrone2019-DET-{split}"
        for image in images:
            write_image(folder / "images", image)
            lines = [
                f"{b.x},{b.y},{b.width},{b.height},1,{4 + names.index(b.name)},0,0\n"
                for b in image.boxes
            ]
            path = folder / "annotations" / image.file_name
            _write(path.with_suffix(".txt"), "".join(lines))


def write_oidv4(root: Path, splits: Splits) -> None:
    """<split>/<class>/ with images, Label/ in it: OIDv4_ToolKit without --multiclasses.

    An image is in the folder of each of its classes, one without objects in that of the first.
    """
    names = class_names(splits)
    for split, images in splits.items():
        for image in images:
            for name in sorted({box.name for box in image.boxes} or names[:1]):
                folder = root / split / name
                write_image(folder, image)
                lines = [oidv4_line(box) for box in image.boxes if box.name == name]
                _write((folder / "Label" / image.file_name).with_suffix(".txt"), "".join(lines))


def oidv4_line(b: Box) -> str:
    """The class and the corners of a box."""
    corners = map(float, (b.x, b.y, b.x + b.width, b.y + b.height))
    return f"{b.name} {' '.join(map(str, corners))}\n"


def write_mot(root: Path, splits: Splits) -> None:
    """<split>/ with gt/gt.txt, gt/labels.txt and frames in img1/: CVAT's MOT 1.1."""
    names = class_names(splits)
    for split, images in splits.items():
        lines = []
        for frame, image in enumerate(images, 1):
            write_image(root / split / "img1", image._replace(file_name=f"{frame:06d}.png"))
            for number, b in enumerate(image.boxes, 1):
                box = f"{float(b.x)},{float(b.y)},{float(b.width)},{float(b.height)}"
                lines.append(f"{frame},{number},{box},1,{1 + names.index(b.name)},1.0\n")
        _write(root / split / "gt" / "gt.txt", "".join(lines))
        _write(root / split / "gt" / "labels.txt", "\n".join(names))


def write_dota(root: Path, splits: Splits) -> None:
    """<split>/images, <split>/labelTxt; upright boxes as quadrilaterals."""
    for split, images in splits.items():
        for image in images:
            write_image(root / split / "images", image)
            lines = [dota_line(box) for box in image.boxes]
            path = root / split / "labelTxt" / image.file_name
            _write(
                path.with_suffix(".txt"), "".join(["imagesource:GoogleEarth\ngsd:0.2\n", *lines])
            )


def dota_line(b: Box, difficult: str = " 0") -> str:
    """The four corners of a box, its category and `difficult`."""
    right, bottom = b.x + b.width, b.y + b.height
    corners = b.x, b.y, right, b.y, right, bottom, b.x, bottom
    return f"{' '.join(map(str, corners))} {b.name}{difficult}\n"


def write_widerface(root: Path, splits: Splits) -> None:
    """wider_face_split/wider_face_<split>_bbx_gt.txt, WIDER_<split>/images; all boxes are faces."""
    for split, images in splits.items():
        lines = []
        for image in images:
            write_image(root / f"WIDER_{split}" / "images" / "0--Parade", image)
            lines += [f"0--Parade/{image.file_name}", str(len(image.boxes))]
            faces = [f"{b.x} {b.y} {b.width} {b.height} 0 0 0 0 0 0 " for b in image.boxes]
            lines += faces or ["0 0 0 0 0 0 0 0 0 0 "]
        path = root / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
        _write(path, "\n".join([*lines, ""]))


def write_crowdhuman(root: Path, splits: Splits) -> None:
    """annotation_<split>.odgt, Images/; all boxes are persons."""
    for split, images in splits.items():
        lines = []
        for image in images:
            write_image(root / "Images", image)
            objects = [
                {
                    "tag": "person",
                    "hbox": [b.x, b.y, 3, 3],
                    "vbox": [b.x, b.y, b.width - 1, b.height],
                    "fbox": [b.x, b.y, b.width, b.height],
                    "head_attr": {"ignore": 0, "occ": 0, "unsure": 0},
                    "extra": {"box_id": number, "occ": 1},
                }
                for number, b in enumerate(image.boxes)
            ]
            record = {"ID": str(Path(image.file_name).with_suffix("")), "gtboxes": objects}
            lines.append(json.dumps(record) + "\n")
        _write(root / f"annotation_{split}.odgt", "".join(lines))


def write_vott(root: Path, splits: Splits) -> None:
    """<split>/pets-export.json beside the images: VoTT's JSON export."""
    for split, images in splits.items():
        for image in images:
            write_image(root / split, image)
        _write(root / split / "pets-export.json", json.dumps(vott_json(images), indent=4))


def vott_json(images: list[Annotated]) -> dict:
    """The export of a project."""
    names = class_names({"": images})
    return {
        "name": "pets",
        "securityToken": "pets Token",
        "sourceConnection": {"name": "pets", "providerType": "localFileSystemProxy"},
        "version": "2.2.0",
        "tags": [{"name": name, "color": "#5db300"} for name in names],
        "assets": {f"{n:032x}": vott_asset(image, n) for n, image in enumerate(images)},
    }


def vott_asset(image: Annotated, number: int = 0) -> dict:
    """An image with its regions, as it also is in its own file."""
    asset = {
        "format": image.file_name.rpartition(".")[2],
        "id": f"{number:032x}",
        "name": image.file_name,
        "path": f"file:C:/Users/me/pets/{urllib.parse.quote(image.file_name)}",
        "size": {"width": image.width, "height": image.height},
        "state": 2 if image.boxes else 1,
        "type": 1,
    }
    regions = [
        {
            "id": f"region{place}",
            "type": "RECTANGLE",
            "tags": [b.name],
            "boundingBox": {"height": b.height, "width": b.width, "left": b.x, "top": b.y},
            "points": [
                {"x": x, "y": y} for y in (b.y, b.y + b.height) for x in (b.x, b.x + b.width)
            ],
        }
        for place, b in enumerate(image.boxes)
    ]
    return {"asset": asset, "regions": regions, "version": "2.2.0"}


def write_cloud_jsonl(root: Path, splits: Splits) -> None:
    """<split>_annotations.jsonl, images/: Azure ML."""
    for split, images in splits.items():
        for image in images:
            write_image(root / "images", image)
        lines = [json.dumps(azure_line(image)) + "\n" for image in images]
        _write(root / f"{split}_annotations.jsonl", "".join(lines))


def _fractions(image: Annotated, b: Box, names: tuple[str, ...]) -> dict[str, float]:
    """The corners of a box by their names, as fractions of the image."""
    corners = b.x, b.y, b.x + b.width, b.y + b.height
    sides = (image.width, image.height) * 2
    return {n: v / side for n, v, side in zip(names, corners, sides, strict=True)}


def azure_line(image: Annotated) -> dict:
    """An image with its objects, as Azure ML's AutoML reads it."""
    names = "topX", "topY", "bottomX", "bottomY"
    store = "azureml://subscriptions/1/resourcegroups/2/workspaces/3/datastores/4/paths/pets"
    return {
        "image_url": f"{store}/{image.file_name}",
        "image_details": {
            "format": image.file_name.rpartition(".")[2],
            "width": f"{image.width}px",
            "height": f"{image.height}px",
        },
        "label": [
            {"label": b.name, **_fractions(image, b, names), "isCrowd": 0} for b in image.boxes
        ],
    }


def write_cloud_jsonl_vertex(root: Path, splits: Splits) -> None:
    """data.jsonl with the splits of the images, images/: Vertex AI."""
    uses = {"train": "training", "val": "validation"}
    lines = []
    for split, images in splits.items():
        for image in images:
            write_image(root / "images", image)
            line = vertex_line(image, uses.get(split, split))
            lines.append(json.dumps(line) + "\n")
    _write(root / "data.jsonl", "".join(lines))


def vertex_line(image: Annotated, use: str | None = None) -> dict:
    """An image with its objects, as Vertex AI reads and exports it."""
    names = "xMin", "yMin", "xMax", "yMax"
    named = {"aiplatform.googleapis.com/annotation_set_name": "3245204171334352896"}
    objects = [
        {"displayName": b.name, **_fractions(image, b, names), "annotationResourceLabels": named}
        for b in image.boxes
    ]
    return {
        "imageGcsUri": f"gs://bucket/pets/{image.file_name}",
        "boundingBoxAnnotations": objects,
        "dataItemResourceLabels": {"aiplatform.googleapis.com/ml_use": use} if use else {},
    }


def write_supervisely(root: Path, splits: Splits) -> None:
    """meta.json, and a dataset of each split."""
    names = class_names(splits)
    classes = [{"title": name, "shape": "rectangle", "color": "#FF0000"} for name in names]
    _write(root / "meta.json", json.dumps({"classes": classes, "tags": []}))
    for split, images in splits.items():
        for image in images:
            write_image(root / split / "img", image)
            objects = [
                {
                    "classTitle": b.name,
                    "geometryType": "rectangle",
                    "tags": [],
                    "points": {
                        "exterior": [[b.x, b.y], [b.x + b.width, b.y + b.height]],
                        "interior": [],
                    },
                }
                for b in image.boxes
            ]
            content = {
                "description": "",
                "tags": [],
                "size": {"height": image.height, "width": image.width},
                "objects": objects,
            }
            _write(root / split / "ann" / f"{image.file_name}.json", json.dumps(content))


def coco_json(images: list[Annotated], names: list[str], first_id: int = 1) -> dict:
    """COCO's instances JSON; categories are numbered from `first_id`."""
    annotations = [
        {
            "id": 0,
            "image_id": image_id,
            "category_id": first_id + names.index(b.name),
            "bbox": [b.x, b.y, b.width, b.height],
            "area": b.width * b.height,
            "iscrowd": 0,
            "segmentation": [],
        }
        for image_id, image in enumerate(images, 1)
        for b in image.boxes
    ]
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    return {
        "images": [
            {"id": i, "file_name": im.file_name, "width": im.width, "height": im.height}
            for i, im in enumerate(images, 1)
        ],
        "annotations": annotations,
        "categories": [{"id": first_id + k, "name": n} for k, n in enumerate(names)],
    }


def write_coco(root: Path, splits: Splits) -> None:
    """annotations/instances_<split>.json, images/<split>."""
    for split, images in splits.items():
        for image in images:
            write_image(root / "images" / split, image)
        content = coco_json(images, class_names(splits))
        _write(root / "annotations" / f"instances_{split}.json", json.dumps(content))


def write_coco_roboflow(root: Path, splits: Splits) -> None:
    """<split>/_annotations.coco.json beside the images, with a root category of id 0."""
    for split, images in splits.items():
        folder = root / {"val": "valid"}.get(split, split)
        for image in images:
            write_image(folder, image)
        content = coco_json(images, class_names(splits))
        for category in content["categories"]:
            category["supercategory"] = "things"
        content["categories"].insert(0, {"id": 0, "name": "things", "supercategory": "none"})
        _write(folder / "_annotations.coco.json", json.dumps(content))


def write_coco_fiftyone(root: Path, splits: Splits) -> None:
    """<split>/labels.json, <split>/data."""
    for split, images in splits.items():
        for image in images:
            write_image(root / split / "data", image)
        content = coco_json(images, class_names(splits), first_id=0)
        _write(root / split / "labels.json", json.dumps(content))


def image_list_line(image: Annotated, names: list[str], folder: str = "") -> str:
    """`path x1,y1,x2,y2,class ...`: an image with its boxes, as keras-yolo3 reads it."""
    boxes = [
        f" {b.x},{b.y},{b.x + b.width},{b.y + b.height},{names.index(b.name)}" for b in image.boxes
    ]
    return f"{folder}{image.file_name}{''.join(boxes)}\n"


def write_image_list(root: Path, splits: Splits) -> None:
    """2007_<split>.txt with paths of another machine, model_data/voc_classes.txt."""
    names, folder = class_names(splits), "VOCdevkit/VOC2007/JPEGImages"
    for split, images in splits.items():
        for image in images:
            write_image(root / folder, image)
        lines = [image_list_line(image, names, f"/home/me/yolo/{folder}/") for image in images]
        _write(root / f"2007_{split}.txt", "".join(lines))
    _write(root / "model_data" / "voc_classes.txt", "\n".join(names))


def write_image_list_roboflow(root: Path, splits: Splits) -> None:
    """<split>/_annotations.txt and <split>/_classes.txt beside the images."""
    names = class_names(splits)
    for split, images in splits.items():
        folder = root / {"val": "valid"}.get(split, split)
        for image in images:
            write_image(folder, image)
        lines = [image_list_line(image, names) for image in images]
        _write(folder / "_annotations.txt", "".join(lines))
        _write(folder / "_classes.txt", "".join(f"{name}\n" for name in names))


def write_sagemaker(root: Path, splits: Splits) -> None:
    """<split>.manifest, images in images/: SageMaker Ground Truth."""
    names = class_names(splits)
    for split, images in splits.items():
        for image in images:
            write_image(root / "images", image)
        lines = [json.dumps(sagemaker_line(image, names)) + "\n" for image in images]
        _write(root / f"{split}.manifest", "".join(lines))


def sagemaker_line(image: Annotated, names: list[str], attribute: str = "pets-job") -> dict:
    """A line of an output manifest; its class-map has the classes of this image alone."""
    annotations = [
        {
            "class_id": names.index(b.name),
            **{"top": b.y, "left": b.x, "height": b.height, "width": b.width},
        }
        for b in image.boxes
    ]
    size = {"width": image.width, "height": image.height, "depth": 3}
    used = sorted({b.name for b in image.boxes})
    return {
        "source-ref": f"s3://bucket/pets/{urllib.parse.quote(image.file_name)}",
        attribute: {"image_size": [size], "annotations": annotations},
        f"{attribute}-metadata": {
            "objects": [{"confidence": 0.09} for _ in annotations],
            "class-map": {str(names.index(name)): name for name in used},
            "type": "groundtruth/object-detection",
            "human-annotated": "yes",
            "creation-date": "2024-05-12T23:36:20.022886",
            "job-name": f"labeling-job/{attribute}",
        },
    }


def write_tfrecord(root: Path, splits: Splits) -> None:
    """<split>.tfrecord with the images in it, label_map.pbtxt: CVAT."""
    names = class_names(splits)
    for split, images in splits.items():
        examples = [tf_example(tf_features(image, names)) for image in images]
        write_records(root / f"{split}.tfrecord", examples)
    items = [f"item {{\n  id: {k}\n  name: '{name}'\n}}\n" for k, name in enumerate(names, 1)]
    _write(root / "label_map.pbtxt", "\n".join(items))


def tf_features(image: Annotated, names: list[str]) -> dict[str, list]:
    """What an Example of the Object Detection API has of an image."""
    return {
        "image/encoded": [image_bytes(image)],
        "image/filename": [image.file_name.encode()],
        "image/height": [image.height],
        "image/width": [image.width],
        "image/object/bbox/xmin": [b.x / image.width for b in image.boxes],
        "image/object/bbox/xmax": [(b.x + b.width) / image.width for b in image.boxes],
        "image/object/bbox/ymin": [b.y / image.height for b in image.boxes],
        "image/object/bbox/ymax": [(b.y + b.height) / image.height for b in image.boxes],
        "image/object/class/text": [b.name.encode() for b in image.boxes],
        "image/object/class/label": [1 + names.index(b.name) for b in image.boxes],
    }


def tf_example(features: dict[str, list]) -> bytes:
    """A serialized tf.train.Example: lists of bytes, 64-bit integers or 32-bit floats by name."""
    entries = b""
    for name, values in features.items():
        if values and isinstance(values[0], bytes):
            kind, content = 1, b"".join(_field(1, value) for value in values)
        elif values and isinstance(values[0], int):
            kind, content = 3, _field(1, b"".join(_varint(value % 2**64) for value in values))
        else:
            kind, content = 2, _field(1, struct.pack(f"<{len(values)}f", *values))
        entries += _field(1, _field(1, name.encode()) + _field(2, _field(kind, content)))
    return _field(1, entries)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    found = []
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def write_records(path: Path, contents: list[bytes]) -> None:
    """A TFRecord file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for content in contents:
            for data in (struct.pack("<Q", len(content)), content):
                # The CRCs of data are not read, and slow to compute.
                crc = masked_crc32c(data) if data is not content else 0
                file.write(data + struct.pack("<I", crc))


WRITERS: dict[str, Callable[[Path, Splits], None]] = {
    "coco": write_coco,
    "coco_roboflow": write_coco_roboflow,
    "coco_fiftyone": write_coco_fiftyone,
    "yolo": write_yolo,
    "yolo_roboflow": write_yolo_roboflow,
    "yolo_darknet": write_yolo_darknet,
    "voc": write_voc,
    "voc_beside": write_voc_beside,
    "labelme": write_labelme,
    "supervisely": write_supervisely,
    "via": write_via,
    "via3": write_via3,
    "createml": write_createml,
    "bdd100k": write_bdd100k,
    "label_studio": write_label_studio,
    "labelbox": write_labelbox,
    "darwin": write_darwin,
    "cvat": write_cvat,
    "dota": write_dota,
    "cvat_video": write_cvat_video,
    "datumaro": write_datumaro,
    "csv": write_csv,
    "csv_keras": write_csv_keras,
    "imagefolder": write_imagefolder,
    "image_list": write_image_list,
    "image_list_roboflow": write_image_list_roboflow,
    "sagemaker": write_sagemaker,
    "vott": write_vott,
    "cloud_jsonl": write_cloud_jsonl,
    "cloud_jsonl_vertex": write_cloud_jsonl_vertex,
}
# Their classes are given, or have names without spaces.
FURTHER_WRITERS: dict[str, Callable[[Path, Splits], None]] = {
    "kitti": write_kitti,
    "visdrone": write_visdrone,
    "widerface": write_widerface,
    "crowdhuman": write_crowdhuman,
    "tfrecord": write_tfrecord,
    "oidv4": write_oidv4,
    "mot": write_mot,
}


def globox_annotations(folder: Path, images: list[Annotated]):
    """Images written to a folder, as the globox library holds them; skips the test without it."""
    globox = pytest.importorskip("globox")
    annotations = globox.AnnotationSet()
    for image in images:
        write_image(folder, image)
        found = [
            globox.BoundingBox(
                label=b.name, xmin=b.x, ymin=b.y, xmax=b.x + b.width, ymax=b.y + b.height
            )
            for b in image.boxes
        ]
        size = (image.width, image.height)
        annotations.add(globox.Annotation(image.file_name, image_size=size, boxes=found))
    return annotations


def datumaro_export(
    folder: Path,
    images: list[Annotated],
    format_name: str,
    shape: Callable[[Box, int], Any] | None = None,
) -> None:
    """FOLDER/out, as the datumaro library writes cats and dogs; skips the test without it.

    shape: of a box and the number of its class; None has boxes.
    """
    datumaro = pytest.importorskip("datumaro")
    shape = shape or (lambda b, label: datumaro.Bbox(b.x, b.y, b.width, b.height, label=label))
    items = []
    for image in images:
        path = write_image(folder / "source", image)
        found = [shape(b, ("cat", "dog").index(b.name)) for b in image.boxes]
        media = datumaro.Image.from_file(path=str(path))
        item = datumaro.DatasetItem(id=path.stem, subset="train", media=media, annotations=found)
        items.append(item)
    made = datumaro.Dataset.from_iterable(items, categories=["cat", "dog"])
    made.export(str(folder / "out"), format_name, save_media=True)
