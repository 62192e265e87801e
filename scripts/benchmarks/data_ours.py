"""Contestant of data.py: the stream of batches that the training loop reads."""

import sys

from benchmarks.contestants import serve, time_handing_over, time_stream
from retinanet_jax.config.data_section import DataConfig
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.pipeline.augmentation_config import AugmentationConfig
from retinanet_jax.data.pipeline.input_pipeline import PipelineConfig, train_batches
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
    settings = DataConfig(name="folder", root=images, cache_dir=cache, eval_split="train")
    dataset = load_dataset(settings, "train")
    settings, augmentation = SETTINGS[case]
    batches = train_batches(
        dataset, batch_size=16, seed=0, settings=settings, augmentation=augmentation
    )
    stream = prefetch_to_device(batches.iterate(), lambda host: host.batch, make_mesh())
    serve(lambda: time_stream(stream, 16) | time_handing_over(stream))
