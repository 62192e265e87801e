"""Detection in a folder of images, from files to files, compared with the bare compiled function.

Ours is `retinanet-jax detect` without loading and compiling: it reads, decodes, detects, draws ten
objects on each image and writes images, COCO JSON and CSV. The bare function gets the same images
as batches in memory. --count images are copies of those in --images, or synthetic ones of 640 x
480. The network is a ResNet with random weights and 80 classes.
"""

import shutil
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.contestants import Contestant, take_turns
from benchmarks.data import write_images
from benchmarks.rows import Row, compare, processor, versions


def add_arguments(parser) -> None:
    parser.add_argument("--cores", default="2", help="how many cores to use, one after the other")
    parser.add_argument("--images", type=Path, help="a folder of photographs")
    parser.add_argument("--count", type=int, default=200, help="images, with repetition")
    parser.add_argument("--size", default="320", help="short side for the network, in pixels")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch_size", default="1", help="images at a time")
    parser.add_argument("--format", default="images,coco,csv", help="what is written")


def run(arguments) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        source, copies = arguments.images, Path(folder) / "copies"
        if source is None:
            write_images(Path(folder))
            source = Path(folder) / "images"
        copy_in_turn(source, copies, arguments.count)
        return [_row(copies, cores, arguments) for cores in map(int, arguments.cores.split(","))]


def copy_in_turn(source: Path, target: Path, count: int) -> None:
    """Copies `count` files under new names, cycling through those of a folder."""
    target.mkdir()
    originals = sorted(path for path in source.iterdir() if path.is_file())
    for i in range(count):
        original = originals[i % len(originals)]
        shutil.copyfile(original, target / f"{i:06d}{original.suffix}")


def _row(images: Path, cores: int, arguments) -> Row:
    common = (str(images), arguments.size, arguments.backbone, arguments.batch_size)
    start = partial(Contestant, "detect_ours", cores=range(cores), platforms="")
    entrants = {
        "ours": partial(start, arguments.format, *common),
        "bare": partial(start, "bare", *common),
    }
    found = take_turns(entrants, arguments.rounds)
    ours, bare = found["ours"], found["bare"]
    measure, unit = ("cpu_s", "CPU, 1 core") if cores == 1 else ("wall_s", f"time, {cores} cores")
    of = f"{arguments.backbone}, short side {arguments.size}, batch {arguments.batch_size}"
    return compare(
        f"detect, {of}, {arguments.format}: {unit} per image",
        ours[measure],
        "bare predict function",
        bare[measure],
        memory_mb=max(ours["memory_mb"]),
        peer_memory_mb=max(bare["memory_mb"]),
        device=processor() if ours["device"][0] == "cpu" else ours["device"][0],
        versions=versions("jaxlib", "flax", "opencv-python-headless", "pillow"),
    )
