"""The Detector: a trained network that is called on images, folders and videos."""

import dataclasses
import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from retinanet_jax.config.settings import Config, ConfigError
from retinanet_jax.config.settings_tree import suggest
from retinanet_jax.core.postprocess import Detections, PostprocessConfig
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.image_input import ImageLike, is_one_image
from retinanet_jax.data.live_video import LiveVideo
from retinanet_jax.data.pipeline.batch import Batch
from retinanet_jax.data.pipeline.canvas import EVAL_CANVASES, canvases
from retinanet_jax.data.records import Categories
from retinanet_jax.data.tiled_source import OVERLAP
from retinanet_jax.data.video import Video
from retinanet_jax.inference.forked_process import check_not_forked, is_forked
from retinanet_jax.inference.hub import download_detector, is_hub_name, upload_detector
from retinanet_jax.inference.predict import make_predict_fn
from retinanet_jax.inference.request import Items, Request
from retinanet_jax.inference.results import ImageDetections
from retinanet_jax.inference.stream_sources import items_of
from retinanet_jax.inference.streaming import OnError, SeenStream, Stream, report_errors
from retinanet_jax.inference.test_time_augmentation import PLAIN, View
from retinanet_jax.inference.trained import Trained, read_trained
from retinanet_jax.runtime.mesh import make_mesh, replicated, to_devices
from retinanet_jax.weights import load_detector
from retinanet_jax.weights.locations import is_location

# Of each accelerator. On a CPU 1: batches of eight are a seventh faster at 128 x 128, as much
# slower at 512 x 512 (docs/performance.md), and would be a second function to compile.
BATCH_SIZE = 8


class Detector:
    """A trained network, ready to be called on images.

    >>> detector = Detector.from_checkpoint("runs/shapes")                  # doctest: +SKIP
    >>> found = detector("photo.jpg", threshold=0.5)                        # doctest: +SKIP
    >>> for box, score, label, name in found: print(name, score, box)       # doctest: +SKIP
    >>> for path, found in detector.stream("photos/"): found.plot(...)      # doctest: +SKIP

    It compiles for each canvas (see PipelineConfig.eval_canvas), once for single images and once
    for batches of `batch_size`, when the first one arrives; `warm_up` compiles before.

    Batches are divided over all devices of the process, where their size is a multiple of these.
    Threads can share a Detector. It can be pickled, and so be used in processes that are spawned;
    a process that was forked after the Detector was made raises RuntimeError, where JAX would hang.

    Attributes:
        config: of the run that trained it.
        categories: class names and category ids, by label.
        batch_size: images at a time of a sequence or stream.
        predict_fn: the compiled function of (variables, batch); see make_predict_fn.
        variables: of the network, on each device.
    """

    def __init__(
        self,
        variables: Any,
        config: Config | None = None,  # None: the error of Detector("runs/mine") names the fix
        categories: Categories | None = None,
        *,
        batch_size: int | None = None,
        canvas: str | None = None,
    ):
        """From variables in memory; see from_checkpoint for the arguments."""
        check_not_forked()
        _check_types((variables, Mapping), (config, Config), (categories, Categories))
        if canvas is not None:
            if canvas not in EVAL_CANVASES:
                raise ConfigError(f"canvas: {canvas!r} is not one of {', '.join(EVAL_CANVASES)}")
            pipeline = dataclasses.replace(config.pipeline, eval_canvas=canvas)
            config = dataclasses.replace(config, pipeline=pipeline)
        self._mesh = make_mesh(jax.local_devices())
        if batch_size is None:
            batch_size = self._mesh.size * (1 if jax.default_backend() == "cpu" else BATCH_SIZE)
        if not isinstance(batch_size, numbers.Integral) or batch_size < 1:
            raise ConfigError(f"batch_size: {batch_size!r} is not an integer of at least 1")
        self.config, self.categories, self.batch_size = config, categories, batch_size
        self.variables = jax.device_put(variables, replicated(self._mesh))
        model = build_model(
            config.model, categories.num_classes, config.anchors.anchors_per_location
        )
        self.predict_fn = make_predict_fn(model, config, self._mesh)

    @classmethod
    def from_checkpoint(
        cls,
        location: str | Path,
        step: int | None = None,
        *,
        batch_size: int | None = None,
        canvas: str | None = None,
    ) -> "Detector":
        """The network of a run, or a public one with the conventions of its project.

        Args:
            location: the workdir of a run; or a RetinaNet of torchvision, detectron2 or
                MMDetection as path, https URL or hf://owner/name/file (see weights.load_checkpoint,
                which takes more options: `Detector(*load_checkpoint(location)[:3])`).
            step: of the workdir's checkpoints. None: the best by evaluation (WORKDIR/best), or the
                latest where the run was not evaluated.
            batch_size: images at a time of a sequence or stream; by default 8 for each device, 1
                for each CPU.
            canvas: 'few' or 'tight' in place of config.pipeline.eval_canvas. An imported network
                has 'tight', exact to the last digit and compiled again for every image size; 'few'
                compiles twice for any number of sizes.

        Raises:
            CheckpointError: the workdir has no checkpoint (of this step).
            WeightsError: there is no such file or workdir, or the file is not such a RetinaNet.
        """
        options = {"batch_size": batch_size, "canvas": canvas}
        return cls(*read_trained(location, step), **options)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        class_names: str | Sequence[str] | None = None,
        batch_size: int | None = None,
        canvas: str | None = None,
    ) -> "Detector":
        """A public RetinaNet by name, downloaded once; `retinanet-jax weights` lists the names.

        >>> Detector.from_pretrained("torchvision/retinanet_resnet50_fpn_v2")   # doctest: +SKIP
        >>> Detector.from_pretrained("me/cells")  # after push_to_hub            # doctest: +SKIP

        Args:
            name: of public weights; or of a repository of the Hugging Face Hub, OWNER/NAME, that
                `push_to_hub` wrote; or a path, https URL or hf://owner/name/file.
            class_names: for a file of unknown classes: names in the order of the labels, or 'coco'.
            batch_size, canvas: see from_checkpoint.

        Raises:
            WeightsError: no weights have this name, or they cannot be downloaded or read.
        """
        if is_hub_name(str(name)) and not is_location(name):
            found = download_detector(str(name))
        else:
            found = load_detector(name, class_names)
        return cls(*found[:3], batch_size=batch_size, canvas=canvas)

    def push_to_hub(self, name: str, *, image: ImageLike | None = None, **options: Any) -> str:
        """Uploads the detector to the Hugging Face Hub; returns the address of the repository.

        >>> detector.push_to_hub("me/cells", description="Blood cells.")    # doctest: +SKIP

        `Detector.from_pretrained("me/cells")` reads it. The extra `[hub]` has to be installed.

        Args:
            name: OWNER/NAME; the repository is made if it is missing.
            image: an example, which the model card shows with the detections above .5.
            options: description, metrics, private, token; see hub.upload_detector.

        Raises:
            WeightsError: an invalid name, a refused token, or no connection.
        """
        trained = Trained(self.variables, self.config, self.categories)
        example = None if image is None else self(image, threshold=0.5)
        return upload_detector(trained, name, example=example, **options)

    def with_postprocess(self, **fields: Any) -> "Detector":
        """The same network with other values in config.postprocess; it compiles again.

        >>> detector.with_postprocess(score_threshold=0.001, max_detections=300)  # doctest: +SKIP

        Raises:
            ConfigError: a field that does not exist, or an invalid value.
        """
        known = {field.name for field in dataclasses.fields(PostprocessConfig)}
        for name in fields:
            if name not in known:
                raise ConfigError(f"with_postprocess: {name}: {suggest(name, sorted(known))}")
        try:
            postprocess = dataclasses.replace(self.config.postprocess, **fields)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"with_postprocess: {error}") from error
        config = dataclasses.replace(self.config, postprocess=postprocess)
        return Detector(self.variables, config, self.categories, batch_size=self.batch_size)

    def __call__(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        threshold: float | int | None = None,
        classes: Sequence[str] | None = None,
        max_detections: int | None = None,
        flip: bool = False,
        scales: Sequence[float | int] = (1.0,),
        tile: int | None = None,
        overlap: float | int = OVERLAP,
        merge: str = "nms",
    ) -> ImageDetections | list[ImageDetections]:
        """Detections of one image, or a list of them for a sequence of images.

        threshold, classes and max_detections select among the results of the compiled function and
        compile nothing. It has dropped scores below config.postprocess.score_threshold and all but
        the best config.postprocess.max_detections of all classes together; a request for more is an
        error that names `with_postprocess`.

        Args:
            images: a path, a Pillow image or an array (see data/image_input.py::read_image), of any
                size; or a sequence of these.
            threshold: keep scores strictly above this.
            classes: keep these, by name.
            max_detections: keep this many, the best.
            flip: detect in the mirrored image as well, and merge: test-time augmentation.
            scales: likewise at the size of the config times each of these. A new scale compiles.
            tile: side in pixels of square tiles, in which large images are seen as well as whole.
                In place of flip and scales.
            overlap: of neighbouring tiles, as a share of their side.
            merge: detections of several views or tiles: 'nms', or 'weighted' for weighted boxes
                (arXiv 1910.13302).

        Returns:
            Detections by falling score, boxes in pixels of the image as shown: turned as its EXIF
            orientation says.

        Raises:
            DataError: a file that is missing or not an image, or an array of another type or shape.
            ConfigError: an unknown class, or an invalid threshold, number or scale.
        """
        request = Request(threshold, classes, max_detections, flip, scales, tile, overlap, merge)
        request.check(self.config.postprocess, self.categories)
        one = is_one_image(images)
        images = [images] if one else list(images)
        rows = 1 if len(images) == 1 else self.batch_size
        found = [found for _, found in self._run(request, enumerate(images), rows)]
        return found[0] if one else found

    def stream(
        self,
        source: str | Path | int | Video | LiveVideo | Iterable[ImageLike],
        *,
        threshold: float | int | None = None,
        classes: Sequence[str] | None = None,
        max_detections: int | None = None,
        flip: bool = False,
        scales: Sequence[float | int] = (1.0,),
        tile: int | None = None,
        overlap: float | int = OVERLAP,
        merge: str = "nms",
        on_error: OnError | None = None,
    ) -> Iterator[tuple[Any, ImageDetections]]:
        """Detections of any number of images, in order, as soon as they are ready.

        Files are read and decoded in threads while the network runs; memory holds a few batches.

        Args:
            source: paths or images, from a list or a generator, which runs in another thread; or a
                folder, with its subfolders; a video; the number of a webcam; or the URL of an image
                or of a video that OpenCV reads: http://HOST/photo.jpg, rtsp://HOST/PATH.
            threshold: this and the other arguments as of a call.
            on_error: called with (item, DataError) for an image that cannot be read, and for a
                video that ends early; the stream continues. None: the error is raised after the
                results before it, and ends the stream.

        Returns:
            Pairs of the item (of a folder: the path; of a video: the frame's number, from 0; of an
            image's URL: the URL) and its detections.

        Raises:
            DataError, ConfigError: as a call; errors in the arguments are raised at once.
        """
        request = Request(threshold, classes, max_detections, flip, scales, tile, overlap, merge)
        request.check(self.config.postprocess, self.categories)
        return self._run(request, items_of(source), self.batch_size, on_error)

    def warm_up(self, sizes: Sequence[tuple[int, int]] = ()) -> None:
        """Compiles now for images of these (height, width), single and in batches.

        By default for the canvases of landscapes and portraits. A network with the canvas 'tight'
        compiles for every image size: pass the sizes.
        """
        for size in sizes or canvases(self.config.pipeline)[:2]:
            image = np.zeros((*size, 3), np.uint8)
            for rows in {1, self.batch_size}:
                list(self._see([(0, image)], PLAIN, rows))

    def __getstate__(self) -> dict[str, Any]:
        names = ("config", "categories", "batch_size")
        return {name: getattr(self, name) for name in names} | {
            "variables": jax.device_get(self.variables)
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        if is_forked():  # a pool would hang if unpickling raised; the first call raises
            self.__dict__.update(state)
        else:
            self.__init__(**state)

    def _run(
        self, request: Request, items: Items, rows: int, on_error: OnError | None = None
    ) -> Iterator[tuple[Any, ImageDetections]]:
        limits = self.config.postprocess
        stream = request.see(self._see, items, limits, rows, self.batch_size)
        if on_error is not None:
            stream = report_errors(stream, on_error)
        return request.results(stream, self.categories, limits)

    def _see(self, items: Items, views: tuple[View, ...], rows: int) -> SeenStream:
        check_not_forked()
        return Stream(self._launch, views, self.config.pipeline, rows).run(items)

    def _launch(self, batch: Batch) -> Detections:
        size = self._mesh.size
        if size > 1 and len(batch.images) % size == 0:
            batch = to_devices(batch, self._mesh)
        return self.predict_fn(self.variables, batch)


def _check_types(*given: tuple[Any, type]) -> None:
    for value, kind in given:
        if not isinstance(value, kind):
            raise TypeError(
                f"Detector: got {type(value).__name__} for {kind.__name__}; for a workdir, a file "
                "or a URL use Detector.from_checkpoint(location)"
            )
