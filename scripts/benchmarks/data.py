"""The input pipeline: CPU time, throughput and memory, compared with decoding alone and tf.data.

Synthetic JPEGs of 640 x 480 and about 130 kB with 7 boxes each become batches of 16: at 800/1333
with flips, and at 640 x 640 with a scale jitter of 0.8 to 1.2 and flips. Ours reads the folder in
place, and once more as ArrayRecord by TFDS, and leaves the flip to the device; tf.data reads
TFRecord. Peers: the decoder alone (simplejpeg if it is installed, else OpenCV), and tf.data in the
environment of --peer_python, by default this one.
"""

import json
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from benchmarks.contestants import Contestant, take_turns
from benchmarks.rows import Row, compare, processor, versions

IMAGES, SIZE = 128, (480, 640)
PACKAGES = ("opencv-python-headless", "tensorflow-datasets")
CASES = {"640": "640x640, jitter", "800": "800/1333"}


def add_arguments(parser) -> None:
    parser.add_argument("--cores", default="1,2", help="how many cores to use, one after the other")
    parser.add_argument("--peer_python", default=sys.executable, help="a Python with TensorFlow")


def run(arguments) -> list[Row]:
    # Imported here: other benchmarks run without TFDS.
    from retinanet_jax.data.folder import FolderSettings
    from retinanet_jax.data.store.prepare_folder import prepare_folder

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        images, cache = Path(folder) / "images", Path(folder) / "cache"
        write_images(images)
        settings = FolderSettings(str(images), str(cache), eval_split="train")
        records = prepare_folder(settings, cache)
        for cores in map(int, arguments.cores.split(",")):
            for case in CASES:
                rows += _contest(case, images, records, cores, arguments)
    return rows


def _contest(case: str, images: Path, records: Path, cores: int, arguments) -> list[Row]:
    label = f"{CASES[case]}, {cores} core{'s' * (cores > 1)}"
    cpus, cache = range(cores), str(images.parent / "cache")
    python = arguments.peer_python
    entrants = {
        "ours": lambda: Contestant("data_ours", case, str(images), cache, cores=cpus),
        "ArrayRecord": lambda: Contestant("data_ours", case, str(records), cache, cores=cpus),
        "decode": lambda: Contestant("data_decode", str(images), cores=cpus),
        "tf.data": lambda: Contestant(
            "data_tensorflow", case, str(images), cores=cpus, python=python
        ),
    }
    return _rows(label, take_turns(entrants, arguments.rounds))


def _rows(label: str, found: dict[str, dict[str, list]]) -> list[Row]:
    ours, decode, peer = found["ours"], found["decode"], found.get("tf.data")
    stored = found["ArrayRecord"]
    where = {"device": processor(), "memory_mb": ours["memory_mb"][-1]}
    decoder = decode["decoder"][0]
    row = compare(
        f"{label}: CPU per image",
        ours["cpu_s"],
        f"{decoder}, decoding alone",
        decode["cpu_s"],
        versions=versions(*PACKAGES, extra=decoder),
        peer_memory_mb=decode["memory_mb"][-1],
        limit_share=float(np.median(np.divide(decode["cpu_s"], ours["cpu_s"]))),
        **where,
    )
    handing_over = Row(
        f"{label}: main thread per batch",
        float(np.median(ours["main_s"])),
        versions=versions(*PACKAGES, extra=decoder),
        **where,
    )
    in_place = [
        compare(
            f"{label}: {what} per image, read in place",
            ours[field],
            "ArrayRecord",
            stored[field],
            versions=versions(*PACKAGES, extra=decoder),
            peer_memory_mb=stored["memory_mb"][-1],
            **where,
        )
        for what, field in (("CPU", "cpu_s"), ("time", "wall_s"))
    ]
    if not peer:
        return [row, *in_place, handing_over]
    where |= {
        "versions": versions(*PACKAGES, extra=f"{decoder}, {peer['version'][0]}"),
        "peer_memory_mb": peer["memory_mb"][-1],
    }
    return [
        row,
        *in_place,
        compare(f"{label}: CPU per image", ours["cpu_s"], "tf.data", peer["cpu_s"], **where),
        compare(f"{label}: time per image", ours["wall_s"], "tf.data", peer["wall_s"], **where),
        handing_over,
    ]


def write_images(root: Path) -> None:
    """A folder in COCO format: noise of several scales, which compresses like a photograph."""
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(IMAGES):
        path = root / "images" / f"{i}.jpg"
        cv2.imwrite(str(path), _image(rng), [cv2.IMWRITE_JPEG_QUALITY, 90])
        images.append({"id": i, "file_name": path.name, "height": SIZE[0], "width": SIZE[1]})
        for width, height in rng.uniform(20, 200, (7, 2)).tolist():
            x, y = rng.uniform(0, 1, 2) * (SIZE[1] - width, SIZE[0] - height)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": 1 + i % 3,
                    "bbox": [float(x), float(y), width, height],
                    "area": width * height,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": f"class {i}"} for i in (1, 2, 3)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / "instances_train.json").write_text(
        json.dumps(content), encoding="utf-8"
    )
    size = np.mean([path.stat().st_size for path in (root / "images").iterdir()])
    print(f"{IMAGES} JPEGs of {SIZE[1]} x {SIZE[0]}, {size / 1e3:.0f} kB on average")


def _image(rng: np.random.Generator) -> np.ndarray:
    image = rng.normal(120, 8.5, (*SIZE, 1)).astype(np.float32)
    for cells, strength in ((4, 60), (16, 40), (60, 30), (160, 20)):
        noise = rng.uniform(-1, 1, (cells * 3 // 4, cells, 3)).astype(np.float32)
        image = image + strength * cv2.resize(noise, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(image, 0, 255).astype(np.uint8)
