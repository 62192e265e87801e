"""The sections of the configuration that are about a run: data, optimizer, training, evaluation.

The other sections are defined beside the code that they configure: AnchorConfig in core/anchors.py,
PipelineConfig in data/pipeline/canvas.py, and so on; config/settings.py puts all of them together.
"""

import dataclasses

from retinanet_jax.data.shapes import Difficulty
from retinanet_jax.data.splits import KINDS, parse_part
from retinanet_jax.metrics.coco_backends import check_backend


def _one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{field}: {value!r} is not one of {', '.join(allowed)}")


@dataclasses.dataclass(frozen=True)
class ShapesConfig(Difficulty):
    """The built-in dataset (data name 'shapes'); how hard it is: see Difficulty, data/shapes.py.

    Attributes:
        image_size: height and width in pixels.
        num_train: images of the split 'train'.
        num_eval: images of the split 'validation', drawn from another random stream.
        seed: of the drawing; independent of the seed of training.
    """

    image_size: tuple[int, int] = (128, 128)
    num_train: int = 20_000
    num_eval: int = 200
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images, and how strict to be with them.

    Attributes:
        name: 'shapes' (built in), 'folder' (COCO format), 'coco' (TFDS coco/2017), 'coco2014',
            'voc' (2007+2012), 'voc2007' or 'voc2012'; their splits: see data/dataset.py.
        root: folder: the folder with images/ and annotations/; coco and voc: the TFDS data
            directory, '' being ~/tensorflow_datasets.
        cache_dir: where a folder is prepared, once, as an ArrayRecord dataset, and where compiled
            programs are kept for the next start.
        train_split: TFDS split or slice of one, such as 'train' or 'train[:90%]'.
        eval_split: likewise.
        annotations: official annotation file (COCO instances JSON) to evaluate against; '' takes
            the folder's own, and for coco rebuilds it from TFDS (see data/dataset.py).
        mix: further datasets to train on, each as KIND:ROOT:SPLIT or KIND:ROOT:SPLIT*N, KIND being
            a `name`; their images come N times an epoch, their categories are found by name among
            those of train_split (see data/mix.py).
        on_error: 'strict' stops with a list of all bad images and annotations; 'skip' leaves them
            out, and says which and how many, at the start and at the end.
    """

    name: str = "shapes"
    root: str = ""
    cache_dir: str = "~/.cache/retinanet_jax"
    train_split: str = "train"
    eval_split: str = "validation"
    annotations: str = ""
    mix: tuple[str, ...] = ()
    on_error: str = "strict"
    shapes: ShapesConfig = ShapesConfig()

    def __post_init__(self):
        _one_of("data.name", self.name, tuple(KINDS))
        _one_of("data.on_error", self.on_error, ("strict", "skip"))
        for text in self.mix:
            parse_part(text)
        if self.annotations and self.name.startswith(("voc", "shapes")):
            raise ValueError(
                f"data.annotations: not supported for {self.name}, which is evaluated on its own "
                "annotations; leave it empty"
            )
        if self.name == "folder" and not self.root:
            raise ValueError(
                "data.root: is empty; write --config.data.root=FOLDER, a folder that holds images/ "
                "and annotations/instances_<split>.json"
            )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The run.

    Attributes:
        steps: updates in all (paper, section 4: 90k).
        batch_size: images per update over all devices (paper: 16).
        log_every: updates between two lines of the log.
        checkpoint_every: updates between two checkpoints; one more is written at the end, and one
            before each evaluation.
        keep_checkpoints: how many of the latest are kept.
        evaluate_every: updates between two evaluations; 0 evaluates at the end only.
        max_skipped: updates in a row that are left out where the loss or a gradient is not finite;
            the next one ends the run. 0, as in detectron2 and torchvision's references, ends it at
            the first: with bfloat16 and float32 such a step is an error and no rounding.
        watchdog_minutes: without progress, until it is said where the run hangs; 0 never.
    """

    steps: int = 90_000
    batch_size: int = 16
    log_every: int = 50
    checkpoint_every: int = 5_000
    keep_checkpoints: int = 3
    evaluate_every: int = 0
    max_skipped: int = 0
    watchdog_minutes: float = 10.0

    def __post_init__(self):
        for field in ("steps", "batch_size", "log_every", "checkpoint_every", "keep_checkpoints"):
            if getattr(self, field) < 1:
                raise ValueError(f"train.{field}: {getattr(self, field)} must be at least 1")
        if self.evaluate_every < 0:
            raise ValueError(
                f"train.evaluate_every: {self.evaluate_every} must be 0 (at the end only) or more"
            )
        for field in ("max_skipped", "watchdog_minutes"):
            if getattr(self, field) < 0:
                raise ValueError(f"train.{field}: {getattr(self, field)} must not be negative")

    def saves_after(self, step: int) -> bool:
        """Whether a checkpoint is due after update `step`: an evaluation never holds the only copy
        of a state."""
        every = self.checkpoint_every
        return step % every == 0 or step == self.steps or self.evaluates_after(step)

    def evaluates_after(self, step: int) -> bool:
        """Whether an evaluation in mid-run is due after update `step`."""
        every = self.evaluate_every
        return every > 0 and step % every == 0 and step < self.steps


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How a checkpoint is judged.

    Attributes:
        metric: 'coco' (twelve numbers) or 'voc' (11-point and all-point AP at IoU .5).
        backend: of 'coco': 'pycocotools', the official one, or 'hotcoco', the same numbers in a
            thirtieth of the time (an extra: pip install 'retinanet_jax[fast]').
        batch_size: images at a time over all devices.
        example_images: images shown with ground truth beside detections.
        example_min_score: lowest score drawn in the images (AP counts all of them).
    """

    metric: str = "coco"
    backend: str = "pycocotools"
    batch_size: int = 16
    example_images: int = 8
    example_min_score: float = 0.4

    def __post_init__(self):
        _one_of("evaluation.metric", self.metric, ("coco", "voc"))
        check_backend(self.backend)
        if self.batch_size < 1:
            raise ValueError(f"evaluation.batch_size: {self.batch_size} must be at least 1")
        if self.example_images < 0:
            raise ValueError(
                f"evaluation.example_images: {self.example_images} must not be negative"
            )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How the parameters are updated. The defaults are detectron2's RetinaNet schedule.

    Attributes:
        name: 'sgd' (momentum as torch.optim.SGD, which the public baselines use) or 'adamw'.
        learning_rate: rate for a batch of `base_batch_size` images; the rate used is
            learning_rate * batch / base_batch_size for sgd (linear scaling, Goyal et al. 2017) and
            learning_rate * sqrt(batch / base_batch_size) for adamw (Malladi et al. 2022).
        base_batch_size: images per update that `learning_rate` was chosen for (paper: 16).
        momentum: of sgd; adamw uses beta1 .9, beta2 .999.
        nesterov: Nesterov momentum, sgd only.
        weight_decay: L2 for sgd (added to the gradient, as torch), decoupled for adamw.
        decay: 'all' (the paper's code and torchvision v1 decay norms and biases too) or 'kernels'.
        schedule: 'step', 'cosine' (to zero) or 'constant'.
        decay_at: for 'step': fractions of the run after which the rate is multiplied by
            `decay_factor`. Paper, section 4: 60k and 80k of 90k updates.
        decay_factor: see `decay_at`.
        warmup_steps: updates over which the rate rises linearly from `warmup_factor` of its value.
        warmup_factor: detectron2 starts at .001 of the rate, Detectron at 1/3.
        gradient_clip: largest global norm of the gradient; 0 is off.
        backbone_factor: the backbone's learning rate is this many times that of the rest; below 1
            spares pretrained features under adamw (DETR, arXiv 2005.12872, section 4: 0.1).
        accumulate_steps: a batch is worked off in so many parts: less memory, the same update.
        ema_decay: decay of the exponential moving average of the weights that evaluation then
            uses; 0 is off. Early on min(decay, (1 + step) / (10 + step)) is used.
    """

    name: str = "sgd"
    learning_rate: float = 0.01
    base_batch_size: int = 16
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    decay: str = "all"
    schedule: str = "step"
    decay_at: tuple[float, ...] = (2 / 3, 8 / 9)
    decay_factor: float = 0.1
    warmup_steps: int = 1000
    warmup_factor: float = 0.001
    gradient_clip: float = 0.0
    backbone_factor: float = 1.0
    accumulate_steps: int = 1
    ema_decay: float = 0.0

    def __post_init__(self):
        for field, allowed in (
            ("name", ("sgd", "adamw")),
            ("decay", ("all", "kernels")),
            ("schedule", ("step", "cosine", "constant")),
        ):
            value = getattr(self, field)
            if value not in allowed:
                raise ValueError(f"optimizer.{field}: {value!r} is not one of {', '.join(allowed)}")
        for field, low, high, rule in (
            ("learning_rate", 0, None, "above 0, such as 0.01"),
            ("base_batch_size", 0, None, "at least 1"),
            ("accumulate_steps", 0, None, "at least 1"),
            ("decay_factor", 0, 1, "between 0 and 1"),
        ):
            value = getattr(self, field)
            if value <= low or (high is not None and value >= high):
                raise ValueError(f"optimizer.{field}: {value} must be {rule}")
        for field in (
            "weight_decay",
            "warmup_steps",
            "gradient_clip",
            "warmup_factor",
            "backbone_factor",
        ):
            if getattr(self, field) < 0:
                raise ValueError(f"optimizer.{field}: {getattr(self, field)} must not be negative")
        for field in ("ema_decay", "momentum"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"optimizer.{field}: {getattr(self, field)} must be in [0, 1)")
        if not all(0 < at < 1 for at in self.decay_at) or list(self.decay_at) != sorted(
            self.decay_at
        ):
            raise ValueError(
                f"optimizer.decay_at: {self.decay_at} must be rising fractions of the run between "
                "0 and 1, such as (0.667, 0.889)"
            )
