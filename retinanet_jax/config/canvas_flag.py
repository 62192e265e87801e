"""The flag --canvas of the commands: one size of the network's input."""

import re

from retinanet_jax.config.settings import ConfigError
from retinanet_jax.data.pipeline.canvas import PipelineConfig, canvases


def read_canvas(text: str, settings: PipelineConfig) -> tuple[int, int]:
    """Returns height and width in pixels, from '800x1344'.

    Raises:
        ConfigError: the text is not such a pair, or a side is not a multiple of
            pipeline.pad_multiple.
    """
    match = re.fullmatch(r"0*([1-9]\d*)x0*([1-9]\d*)", text.lower())
    if match is None:
        height, width = canvases(settings)[0]
        raise ConfigError(
            f"--canvas={text}: is not HEIGHTxWIDTH in pixels; write e.g. {height}x{width}"
        )
    sides, multiple = tuple(map(int, match.groups())), settings.pad_multiple
    if any(side % multiple for side in sides):
        height, width = (-(-side // multiple) * multiple for side in sides)
        raise ConfigError(
            f"--canvas={text}: sides must be multiples of {multiple} "
            f"(config.pipeline.pad_multiple); write {height}x{width}"
        )
    return sides
