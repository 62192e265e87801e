"""The work of `retinanet-jax detect`: images and videos through a Detector into files."""

import collections
import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from retinanet_jax.cli.dataset_outputs import DATASET_WRITERS, DatasetWriter
from retinanet_jax.cli.inputs import Inputs, common_folder, copy_suffix, drawn_paths
from retinanet_jax.cli.outputs import WRITERS, DetectionFile, writing_to
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.h264 import open_video_writer
from retinanet_jax.data.live_video import LiveVideo
from retinanet_jax.data.pipeline.prefetch import thread_count
from retinanet_jax.data.pipeline.read_ahead import read_ahead
from retinanet_jax.data.records import Categories
from retinanet_jax.data.video import Video
from retinanet_jax.data.web_image import WebImage, open_live
from retinanet_jax.inference.detector import Detector
from retinanet_jax.inference.label_fonts import missing_letters, missing_letters_note
from retinanet_jax.inference.results import ImageDetections
from retinanet_jax.runtime.wording import counted


class Job(NamedTuple):
    """Inputs and outputs.

    formats: some of 'images', 'coco', 'csv', 'yolo' and 'voc'.
    options: keyword arguments of Detector.stream.
    frames: most frames of each video, camera and URL; None: all.
    """

    inputs: Inputs
    out: Path
    formats: Sequence[str]
    options: Mapping[str, Any]
    frames: int | None = None


def detect(detector: Detector, job: Job) -> list[DataError]:
    """Does the job, with a progress bar, and prints a summary. Ctrl-C ends cameras and URLs.

    Returns:
      The errors of files that could not be read; all others are done.

    Raises:
      ConfigError: an option is invalid.
      DataError: there is no image or video, or `out` cannot be written.
    """
    images, videos, left_out, live = job.inputs
    if not images and not videos and not live:
        what = f"none of {len(left_out)} files is an image or a video"
        raise DataError("no input", "inputs", "", what, "pass an image or a video")
    targets = drawn_paths(job.inputs, job.out / "images") if "images" in job.formats else {}
    folders = {job.out / "images"} if live and "images" in job.formats else set()
    _make_folders({job.out, *folders, *(target.parent for target in targets.values())})
    failed: list[DataError] = []
    opened = [*_opened(Video, videos, failed), *_opened(open_live, live, failed)]
    counts, objects = collections.Counter(), collections.Counter()
    with contextlib.ExitStack() as stack:
        stack.enter_context(writing_to(job.out))
        writers = [stack.enter_context(w) for w in _writers(job, detector.categories)]
        lengths = [video.length for video in opened]
        total = len(images) + sum(lengths) if all(lengths) and job.frames is None else None
        bar = stack.enter_context(tqdm(total=total, unit="image", disable=None))

        if live:
            stack.enter_context(contextlib.suppress(KeyboardInterrupt))

        def record(kind: str, file: Path | str, found: ImageDetections, frame: int | None = None):
            for writer in writers:
                writer.add(file, found, frame)
            counts[kind] += 1
            objects.update(found.names)
            bar.update()

        for file, found in _images(detector, images, targets, job.options, failed.append):
            record("image", file, found)
        for video in opened:
            target = _target(video, job, targets)
            if isinstance(video, WebImage):
                record("image", video.name, _web_image(detector, video, target, job.options))
                continue
            frames = _frames(detector, video, target, job.options, failed.append)
            with contextlib.closing(frames):
                for frame, found in itertools.islice(frames, job.frames):
                    record("frame", video.name, found, frame)
    places = [job.out / "images"] if targets or folders else []
    print(_summary(counts, objects, left_out, [*places, *(writer.path for writer in writers)]))
    if places and (missing := missing_letters(detector.categories.names)):
        print(missing_letters_note(missing, "names with them are drawn as `class N`"))
    return failed


def _writers(job: Job, categories: Categories) -> list[DetectionFile | DatasetWriter]:
    files = [*job.inputs.images, *job.inputs.videos]
    root = common_folder(files) if files else Path.cwd()
    tables = [WRITERS[name](job.out, categories) for name in job.formats if name in WRITERS]
    return tables + [
        DATASET_WRITERS[name](job.out / name, categories, root)
        for name in job.formats
        if name in DATASET_WRITERS
    ]


def _images(
    detector: Detector,
    images: Sequence[Path],
    targets: Mapping[Path, Path],
    options: Mapping[str, Any],
    on_error: Callable[[DataError], None],
) -> Iterator[tuple[Path, ImageDetections]]:
    """Each image with its detections, drawn where it has a target."""

    def draw(pair: tuple[Path, ImageDetections]) -> tuple[Path, ImageDetections]:
        path, found = pair
        if path in targets:
            found.plot(targets[path])
        return pair

    def failed(_: Path, error: DataError) -> None:
        on_error(error)

    return _in_threads(detector.stream(images, on_error=failed, **options), draw, detector)


def _target(
    video: Video | LiveVideo | WebImage, job: Job, targets: Mapping[Path, Path]
) -> Path | None:
    """Where a video or the image at a URL is drawn."""
    if isinstance(video, Video):
        return targets.get(video.path)
    suffix = copy_suffix(video.suffix) if isinstance(video, WebImage) else ".mp4"
    return job.out / "images" / f"{video.stem}{suffix}" if "images" in job.formats else None


def _web_image(
    detector: Detector, image: WebImage, target: Path | None, options: Mapping[str, Any]
) -> ImageDetections:
    """The detections of the image at a URL, drawn where it has a target."""
    ((_, found),) = detector.stream([image.pixels], **options)
    if target is not None:
        found.plot(target)
    return found


def _frames(
    detector: Detector,
    video: Video | LiveVideo,
    target: Path | None,
    options: Mapping[str, Any],
    on_error: Callable[[DataError], None],
) -> Iterator[tuple[int, ImageDetections]]:
    """Each frame's number and detections, drawn into another video where there is a target."""

    def draw(pair: tuple[int, ImageDetections]) -> tuple[int, ImageDetections, np.ndarray | None]:
        found = pair[1]
        # Not enlarged: all frames of a video have one size.
        drawn = np.asarray(found.plot(long_side=max(found.size))) if target else None
        return *pair, drawn

    def failed(_: int, error: DataError) -> None:
        on_error(error)

    stream = detector.stream(video, on_error=failed, **options)
    with open_video_writer(target, video.rate) if target else contextlib.nullcontext() as writer:
        for frame, found, drawn in _in_threads(stream, draw, detector):
            if writer:
                writer.write(drawn)
            yield frame, found


def _in_threads(stream: Iterable[Any], work: Callable[[Any], Any], detector: Detector):
    """`work` on each item of the stream in threads, while the network runs on the next ones."""
    threads = thread_count(detector.config.pipeline)
    return read_ahead(stream, work, threads=threads, ahead=2 * threads)


def _opened(
    opening: Callable[[Any], Any], sources: Sequence[Path | str], failed: list[DataError]
) -> list[Video | LiveVideo | WebImage]:
    videos = []
    for source in sources:
        try:
            videos.append(opening(source))
        except DataError as error:
            failed.append(error)
    return videos


def _make_folders(folders: Iterable[Path]) -> None:
    for folder in folders:
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)


def _summary(
    counts: Mapping[str, int],
    objects: collections.Counter,
    left_out: Sequence[Path],
    places: Sequence[Path],
) -> str:
    kinds = [counted(count, kind) for kind, count in counts.items()]
    seen = ", ".join(kinds) or "nothing"
    found = ", ".join(f"{count} x {name}" for name, count in objects.most_common(8))
    lines = [f"{seen}: {counted(objects.total(), 'object')}{f': {found}' if found else ''}"]
    if len(objects) > 8:
        lines[0] += ", ..."
    if counts and not objects:
        lines[0] += "; lower --threshold to see less certain ones"
    if left_out:
        names = ", ".join(path.name for path in left_out[:5])
        more = ", ..." if len(left_out) > 5 else ""
        lines.append(f"left out, not images: {counted(len(left_out), 'file')}: {names}{more}")
    lines += [f"written: {place}" for place in places]
    return "\n".join(lines)
