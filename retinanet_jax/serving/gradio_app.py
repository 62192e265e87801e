"""The page to try a detector, as a Gradio app: boxes, thresholds, class filter, webcam, video.

The app.py of a Hugging Face Space, beside a requirements.txt with `retinanet_jax[serve]`:

    from retinanet_jax import Detector
    from retinanet_jax.serving.gradio_app import LAUNCH, build_app

    demo = build_app(Detector.from_checkpoint("hf://owner/name/model.safetensors"))
    demo.launch(**LAUNCH)

The network runs once per image, for all NMS IoUs (see inference/nms_sweep.py); the sliders only
select and draw. Uploads are deleted after two minutes.
"""

import functools
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it when it is imported

import gradio as gr
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.image_input import decode_shown
from retinanet_jax.data.images import read_file
from retinanet_jax.data.video import Video, VideoWriter
from retinanet_jax.inference.detector import Detector
from retinanet_jax.inference.drawing import draw_boxes
from retinanet_jax.inference.nms_sweep import NmsSweep, SweptDetections
from retinanet_jax.inference.results import ImageDetections

SCORE = 0.4  # lowest score shown at first, as in `retinanet-jax detect`
SHOWN_SIDE = 1600  # longer side in pixels of the image as drawn and kept per visitor
MAX_FRAMES = 900  # of a video
QUEUE_SIZE = 16  # waiting images and videos; more are refused
MAX_FILE_SIZE = 32 * 2**20  # bytes of an upload
_DELETE = (30, 120)  # seconds: how often, and the age from which uploaded files are deleted
_FORGET = 3600  # seconds, after which an image in memory is dropped

LAUNCH: dict[str, Any] = {
    # System fonts: the page loads nothing from other hosts.
    "theme": gr.themes.Default(
        font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    ),
    "max_file_size": MAX_FILE_SIZE,
    "footer_links": ["api"],
    "run_history": False,
    "ssr_mode": False,
}
"""Arguments of `demo.launch` and `gradio.mount_gradio_app`."""

_SAVE_JSON = """(results, image) => {
    const link = document.createElement("a");
    const content = JSON.stringify(results, null, 1);
    link.href = URL.createObjectURL(new Blob([content], {type: "application/json"}));
    link.download = (image?.orig_name ?? "detections").replace(/\\.[^.]*$/, "") + ".json";
    link.click();
    URL.revokeObjectURL(link.href);
}"""


class _Upload(NamedTuple):
    """An image of a visitor with its detections, kept in memory while the page is open."""

    name: str
    shown: UInt8[np.ndarray, "h w 3"]  # scaled down to SHOWN_SIDE
    swept: SweptDetections


def build_app(
    detector: Detector | NmsSweep,
    *,
    title: str = "Try a detector",
    examples: Sequence[str | Path] = (),
) -> gr.Blocks:
    """The app; start it by `launch(**LAUNCH)`.

    Args:
      detector: a Detector. It compiles when the first image of a canvas arrives; an NmsSweep can be
        passed to compile it before (`warm_up`).
      title: title of the page.
      examples: image files that visitors can choose.
    """
    sweep = detector if isinstance(detector, NmsSweep) else NmsSweep(detector)
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=_DELETE) as demo:
        gr.Markdown(f"# {title}")
        thresholds = _threshold_controls(sweep)
        with gr.Tab("Image"):
            _image_tab(sweep, thresholds, examples)
        with gr.Tab("Video"):
            _video_tab(sweep, thresholds)
    return demo.queue(max_size=QUEUE_SIZE)


def _threshold_controls(sweep: NmsSweep) -> list[gr.components.Component]:
    postprocess = sweep.config.postprocess
    least, iou = postprocess.score_threshold, postprocess.nms_iou
    with gr.Row():
        return [
            gr.Slider(least, 1, max(SCORE, least), step=0.01, label="Score above"),
            gr.Slider(
                *(0, 1, iou),
                step=0.05 if round(20 * iou, 9).is_integer() else 0.01,
                label="NMS IoU",
                info="Of two boxes of one class that overlap more, the higher-scoring one is kept.",
            ),
            gr.Dropdown(
                list(sweep.categories.names), multiselect=True, label="Classes", info="None: all."
            ),
        ]


def _image_tab(sweep: NmsSweep, thresholds: list, examples: Sequence[str | Path]) -> None:
    upload = gr.State(time_to_live=_FORGET)
    with gr.Row():
        with gr.Column():
            # None: the file itself is passed on, in any mode.
            image = gr.Image(label="Image", type="filepath", image_mode=None, buttons=[])
            # Gradio's own step opens the file, with other limits and messages than ours. It has
            # checked before that the path is that of an upload.
            image.preprocess = lambda file: file and file.path
            if examples:
                gr.Examples([str(path) for path in examples], image, cache_examples=False)
        with gr.Column():
            drawn = gr.Image(show_label=False, format="jpeg", buttons=["download", "fullscreen"])
            summary = gr.Markdown()
            save = gr.Button("Download JSON", size="sm")
    with gr.Accordion("Detections in COCO's results format", open=False):
        results = gr.JSON(show_label=False)

    def detect(image, score, iou, classes):
        if image is None:
            return None, None, "", None
        file = Path(image)
        pixels = decode_shown(read_file(file), file.name)
        shown = Image.fromarray(pixels)
        shown.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        seen = _Upload(file.name, np.asarray(shown), sweep(pixels))
        return seen, *_render(seen, score, iou, classes)

    outputs = [drawn, summary, results]
    image.change(
        _checked(detect),
        [image, *thresholds],
        [upload, *outputs],
        concurrency_id="network",
        concurrency_limit=1,
        api_name="detect",
    )
    for control in thresholds:
        control.change(
            lambda seen, *chosen: _render(seen, *chosen) if seen else (None, "", None),
            [upload, *thresholds],
            outputs,
            trigger_mode="always_last",  # while a slider moves, positions in between are skipped
            show_progress="hidden",
            concurrency_limit=4,
            api_visibility="private",
        )
    save.click(None, [results, image], js=_SAVE_JSON, api_visibility="private")


def _video_tab(sweep: NmsSweep, thresholds: list) -> None:
    with gr.Row():
        video = gr.Video(label=f"Video (only the first {MAX_FRAMES} frames are used)")
        drawn = gr.Video(label="Detections", interactive=False, autoplay=True)
    start = gr.Button("Detect", variant="primary")

    def detect(video, score, iou, classes, progress=gr.Progress()):  # noqa: B008
        if video is None:
            raise gr.Error("Choose a video first.", print_exception=False)
        source = Video(video)
        total = min(source.length or MAX_FRAMES, MAX_FRAMES)
        drawn = _drawn_frames(sweep, source, score, iou, classes)
        frames = progress.tqdm(drawn, total=total, unit="frames")
        folder = Path(tempfile.mkdtemp(dir=source.path.parent))
        with VideoWriter(folder / f"{source.path.stem}.webm", source.rate) as writer:
            for frame in frames:
                writer.write(frame)
        return str(writer.path)

    start.click(
        _checked(detect),
        [video, *thresholds],
        drawn,
        concurrency_id="network",
        concurrency_limit=1,
        api_name="detect_video",
    )


def _drawn_frames(sweep: NmsSweep, video: Video, *chosen: Any) -> Iterator[np.ndarray]:
    for swept in sweep.stream(itertools.islice(video, MAX_FRAMES)):
        found = _select(swept, *chosen)
        yield np.asarray(found.plot(long_side=max(found.size)))


def _render(seen: _Upload, *chosen: Any) -> tuple[np.ndarray, str, list[dict[str, Any]]]:
    """The drawn image, the summary and the results of an upload under the chosen thresholds."""
    found = _select(seen.swept, *chosen)
    scale = np.tile(np.divide(seen.shown.shape[1::-1], found.size[::-1]), 2)
    drawn = draw_boxes(
        seen.shown, found.boxes * scale, found.labels, found.categories.names, found.scores
    )
    height, width = found.size
    counts = {name: found.names.count(name) for name in dict.fromkeys(found.names)}
    listed = ", ".join(f"{count} x {name}" for name, count in counts.items())
    summary = f"{len(found)} objects in {width} x {height} pixels{': ' * bool(listed)}{listed}"
    stem = Path(seen.name).stem
    image_id = int(stem) if stem.isascii() and stem.isdecimal() else 0
    return drawn, summary, found.to_coco(image_id)


def _select(
    swept: SweptDetections, score: float, iou: float, classes: list[str] | None
) -> ImageDetections:
    return swept.at(iou).select(threshold=score, classes=classes or None)


def _checked(work: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with errors in a visitor's data as a message on the page."""

    @functools.wraps(work)  # Gradio reads the signature
    def checked(*arguments: Any) -> Any:
        try:
            return work(*arguments)
        except DataError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return checked
