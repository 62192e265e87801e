"""Contestant of data.py: the stream of batches that the training loop reads."""

import sys
from types import SimpleNamespace

from benchmarks.contestants import serve, time_handing_over, time_stream
from retinanet_jax.data.pipeline.augmentation import AugmentationConfig
from retinanet_jax.data.pipeline.batches import PipelineConfig, train_batches
from retinanet_jax.data.store.array_record import TfdsSource
from retinanet_jax.data.store.builders import prepare_folder
from retinanet_jax.runtime.mesh import make_mesh, prefetch_to_device

SETTINGS = {
    "640": (
        PipelineConfig(min_side=640, max_side=640),
        AugmentationConfig(scale_jitter=(0.8, 1.2)),
    ),
    "800": (PipelineConfig(), AugmentationConfig()),
}

if __name__ == "__main__":
    case, images, cache = sys.argv[1:]
    prepared = prepare_folder(images, "train", cache, "strict")
    dataset = SimpleNamespace(source=TfdsSource(prepared, "train", cache), name="images")
    settings, augmentation = SETTINGS[case]
    batches = train_batches(
        dataset, batch_size=16, seed=0, settings=settings, augmentation=augmentation
    )
    stream = prefetch_to_device(batches.iterate(), lambda host: host.batch, make_mesh())
    serve(lambda: time_stream(stream, 16) | time_handing_over(stream))
