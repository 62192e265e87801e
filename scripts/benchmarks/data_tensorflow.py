"""Contestant of data.py: the same work in tf.data; needs TensorFlow, but not this package."""

import json
import os
import sys
import tempfile
from pathlib import Path

import tensorflow as tf

from benchmarks.contestants import serve, time_stream

SIDES = {"640": (640, 640, (640, 640), 0.8, 1.2), "800": (800, 1333, (800, 1344), 1.0, 1.0)}
MAX_BOXES = 100
FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "boxes": tf.io.VarLenFeature(tf.float32),
    "labels": tf.io.VarLenFeature(tf.int64),
}


def write_records(images: Path, path: str) -> None:
    """One TFRecord file of encoded images, boxes (y1, x1, y2, x2 in pixels) and labels."""
    content = json.loads(
        (images / "annotations" / "instances_train.json").read_text(encoding="utf-8")
    )
    objects = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        objects[annotation["image_id"]].append(annotation)
    with tf.io.TFRecordWriter(path) as writer:
        for image in content["images"]:
            data = (images / "images" / image["file_name"]).read_bytes()
            boxes, labels = [], []
            for annotation in objects[image["id"]]:
                x, y, width, height = annotation["bbox"]
                boxes += [y, x, y + height, x + width]
                labels.append(annotation["category_id"] - 1)
            features = {
                "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[data])),
                "boxes": tf.train.Feature(float_list=tf.train.FloatList(value=boxes)),
                "labels": tf.train.Feature(int64_list=tf.train.Int64List(value=labels)),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())


def prepare(record: tf.Tensor, case: str) -> tuple[tf.Tensor, ...]:
    """Decodes, crops, resizes, flips and pads one example as retinanet_jax does."""
    min_side, max_side, canvas, low, high = SIDES[case]
    parsed = tf.io.parse_single_example(record, FEATURES)
    image = tf.io.decode_jpeg(parsed["image"], channels=3)
    boxes = tf.reshape(tf.sparse.to_dense(parsed["boxes"]), (-1, 4))
    labels = tf.cast(tf.sparse.to_dense(parsed["labels"]), tf.int32)

    size = tf.cast(tf.shape(image)[:2], tf.float32)
    fit = tf.minimum(min_side / tf.reduce_min(size), max_side / tf.reduce_max(size))
    target = tf.floor(size * fit * tf.random.uniform((), low, high) + 0.5)
    shown = tf.minimum(target, tf.constant(canvas, tf.float32))
    window = tf.round(size * shown / target)
    corner = tf.floor(tf.random.uniform((2,)) * (size - window + 1))
    top, left = tf.unstack(tf.cast(corner, tf.int32))
    height, width = tf.unstack(tf.cast(window, tf.int32))
    image = tf.slice(image, (top, left, 0), (height, width, 3))
    image = tf.image.resize(image, tf.cast(shown, tf.int32))
    image = tf.cast(tf.round(image), tf.uint8)

    boxes = boxes - tf.tile(corner, (2,))
    clipped = tf.clip_by_value(boxes, 0.0, tf.tile(window, (2,)))
    area = _area(clipped)
    kept = area >= tf.maximum(0.25 * _area(boxes), 1e-6)
    boxes = tf.boolean_mask(clipped, kept) * tf.tile(shown / window, (2,))
    labels = tf.boolean_mask(labels, kept)
    if tf.random.uniform(()) < 0.5:
        image = tf.image.flip_left_right(image)
        y1, x1, y2, x2 = tf.unstack(boxes, axis=1)
        boxes = tf.stack([y1, shown[1] - x2, y2, shown[1] - x1], axis=1)

    image = tf.image.pad_to_bounding_box(image, 0, 0, *canvas)
    missing = MAX_BOXES - tf.shape(boxes)[0]
    boxes = tf.pad(boxes, ((0, missing), (0, 0)))
    labels = tf.pad(labels, ((0, missing),), constant_values=-1)
    return (
        tf.ensure_shape(image, (*canvas, 3)),
        tf.ensure_shape(boxes, (MAX_BOXES, 4)),
        tf.ensure_shape(labels, (MAX_BOXES,)),
    )


def _area(boxes: tf.Tensor) -> tf.Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def stream(path: str, case: str, cores: int) -> tf.data.Dataset:
    """Endless shuffled batches of 16, two prefetched."""
    options = tf.data.Options()
    options.threading.private_threadpool_size = cores
    options.threading.max_intra_op_parallelism = 1
    dataset = tf.data.TFRecordDataset(path).cache().shuffle(128, seed=0).repeat()
    dataset = dataset.map(lambda r: prepare(r, case), num_parallel_calls=cores)
    return dataset.batch(16, drop_remainder=True).prefetch(2).with_options(options)


if __name__ == "__main__":
    case, images = sys.argv[1:]
    cores = len(os.sched_getaffinity(0))
    tf.config.threading.set_intra_op_parallelism_threads(cores)
    tf.config.threading.set_inter_op_parallelism_threads(cores)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "train.tfrecord")
        write_records(Path(images), path)
        batches = stream(path, case, cores).as_numpy_iterator()
        serve(lambda: time_stream(batches, 16) | {"version": f"TensorFlow {tf.__version__}"})
