"""Large images from small photographs, and average precision on them with and without tiles.

    python scripts/large_images.py make --data=BCCD --out=MOSAICS --columns=4 --rows=4
    python scripts/large_images.py measure --data=MOSAICS --model=runs/bccd --tile=240 \\
        --classes=WBC,Platelets

`make` joins photographs of one size, COCO JSON in annotations/instances_SPLIT.json, to a grid
without gaps, each photograph once, in an order drawn with seed 0; the rest that does not fill a
grid is left out. `measure` prints a table: the images whole, whole at the scale of the tiles, and
in tiles, merged by NMS and as weighted boxes.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import cv2
import numpy as np

from retinanet_jax import Detector
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.training.evaluation import score


def make(data: Path, out: Path, columns: int, rows: int) -> None:
    """Writes the grids of both splits, as COCO JSON and JPEG files of quality 95."""
    for split in ("train", "val"):
        content = json.loads((data / f"annotations/instances_{split}.json").read_text("utf-8"))
        order = np.random.default_rng(0).permutation(len(content["images"]))
        photographs = [content["images"][i] for i in order]
        by_image: dict[int, list[dict]] = {}
        for annotation in content["annotations"]:
            by_image.setdefault(annotation["image_id"], []).append(annotation)
        images, annotations = [], []
        for number in range(len(photographs) // (columns * rows)):
            name = f"{split}_{number:03d}.jpg"
            pixels = []
            for place in range(columns * rows):
                photograph = photographs[number * columns * rows + place]
                pixels.append(cv2.imread(str(data / "images" / photograph["file_name"])))
                row, column = divmod(place, columns)
                top, left = row * pixels[-1].shape[0], column * pixels[-1].shape[1]
                for annotation in by_image.get(photograph["id"], []):
                    x, y, width, height = annotation["bbox"]
                    moved = {"bbox": [x + left, y + top, width, height], "image_id": number + 1}
                    identity = {"id": len(annotations) + 1, "segmentation": []}
                    annotations.append({**annotation, **moved, **identity})
            grid = np.vstack([np.hstack(pixels[r * columns :][:columns]) for r in range(rows)])
            (out / "images").mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(out / "images" / name), grid, [cv2.IMWRITE_JPEG_QUALITY, 95])
            size = {"height": grid.shape[0], "width": grid.shape[1]}
            images.append({"id": number + 1, "file_name": name, **size})
        (out / "annotations").mkdir(exist_ok=True)
        joined = {**content, "images": images, "annotations": annotations}
        path = out / f"annotations/instances_{split}.json"
        path.write_text(json.dumps(joined), encoding="utf-8")
        print(f"{path}: {len(images)} images, {len(annotations)} boxes")


def measure(data: Path, model: Path, tile: int, classes: tuple[str, ...] | None) -> None:
    """Prints the table."""
    # COCO's AP counts 100 detections of an image: those of the classes that are measured.
    detector = Detector.from_checkpoint(model).with_postprocess(max_detections=600)
    chosen = {"root": str(data), "classes": classes or (), "annotations": "", "eval_split": "val"}
    config = dataclasses.replace(
        detector.config, data=dataclasses.replace(detector.config.data, **chosen)
    )
    dataset = load_dataset(config.data, "val")
    images = [dataset.source[i] for i in range(len(dataset.source))]
    pipeline = config.pipeline
    factor = images[0].image.shape[0] / tile  # whole images at the scale of the tiles
    larger = dataclasses.replace(
        pipeline,
        min_side=round(pipeline.min_side * factor),
        max_side=round(pipeline.min_side * images[0].image.shape[1] / tile),
    )
    at_scale = Detector(
        detector.variables, dataclasses.replace(config, pipeline=larger), detector.categories
    )
    whole = f"{pipeline.min_side}x{pipeline.max_side}"
    print(
        "| detection | AP | AP50 | APs | APm | CPU seconds per image |\n|---|---|---|---|---|---|"
    )
    for name, one, options in (
        (f"whole image at {whole}", detector, {}),
        (f"whole image at {larger.min_side}x{larger.max_side}", at_scale, {}),
        (f"whole and tiles of {tile}, NMS", detector, {"tile": tile}),
        (f"whole and tiles of {tile}, weighted", detector, {"tile": tile, "merge": "weighted"}),
    ):
        one(images[0].image, **options)  # compiles
        start, results = time.process_time(), []
        for example in images:
            found = one(example.image, classes=classes, **options)
            results += found.to_coco(example.image_id)
        seconds = (time.process_time() - start) / len(images)
        summary = score(results, dataset, config).summary
        numbers = [f"{summary[key]:.3f}".lstrip("0") for key in ("AP", "AP50", "APs", "APm")]
        print("|", " | ".join([name, *numbers, f"{seconds:.2f}"]), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("what", choices=("make", "measure"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="make: folder to write")
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--model", type=Path, help="measure: workdir of a run")
    parser.add_argument("--tile", type=int, default=240)
    parser.add_argument("--classes", type=lambda text: tuple(text.split(",")))
    arguments = parser.parse_args()
    if arguments.what == "make":
        make(arguments.data, arguments.out, arguments.columns, arguments.rows)
    else:
        measure(arguments.data, arguments.model, arguments.tile, arguments.classes)


if __name__ == "__main__":
    main()
