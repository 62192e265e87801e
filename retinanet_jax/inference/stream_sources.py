"""Iterates over the images of a list, folder, video, camera or URL, each with its key."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.image_input import ImageLike, files_below, is_image, is_one_image
from retinanet_jax.data.live_video import LiveVideo, is_live
from retinanet_jax.data.video import Video, is_video
from retinanet_jax.data.web_image import WebImage, open_live


def items_of(
    source: str | Path | int | Video | LiveVideo | Iterable[ImageLike],
) -> Iterable[tuple[Any, ImageLike]]:
    """Yields (key, image): the path or URL of a file, the number of a frame, or the image itself.

    Raises:
      DataError: a video is missing or cannot be read, a camera does not exist, or the image at a
        URL is damaged. If a video ends early, the error takes the place of the next frame.
    """
    if isinstance(source, Video | LiveVideo):
        return _frames(source)
    if is_live(source) and not Path(str(source)).exists():
        opened = open_live(source)
        return [(source, opened.pixels)] if isinstance(opened, WebImage) else _frames(opened)
    if not isinstance(source, str | Path):
        source = [source] if is_one_image(source) else source
        return ((image, image) for image in source)
    path = Path(source).expanduser()
    if path.is_dir():
        return ((file, file) for file in files_below(path) if is_image(file))
    if is_video(path):
        return _frames(Video(path))
    return [(path, path)]


def _frames(video: Video | LiveVideo) -> Iterator[tuple[int, Any]]:
    number = -1
    try:
        for number, frame in enumerate(video):
            yield number, frame
    except DataError as error:
        yield number + 1, error
