"""The sections of the configuration for a run: training, evaluation, optimizer.

`data` is in data_section.py. The other sections are defined next to the code that they configure:
AnchorConfig in core/anchors.py, PipelineConfig in data/pipeline/canvas.py, and so on.
config/settings.py combines all of them.
"""

import dataclasses

from retinanet_jax.core.field_checks import above_zero_or_none, one_of
from retinanet_jax.metrics.coco_backends import check_backend
from retinanet_jax.metrics.federated import FEDERATED_METRICS, check_federated

# Names that fields accept; functions such as `add_optimizer` append to them.
OPTIMIZERS, SCHEDULES = ["sgd", "adamw"], ["step", "cosine", "constant"]
METRICS, LOGGERS = ["coco", "voc", *FEDERATED_METRICS], ["tensorboard", "wandb", "mlflow"]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The length of the run, and how often it logs, saves and evaluates.

    Fields that depend on the number of training images, 'auto' here, become numbers once the
    dataset is read (training/run_length.py). The run logs them and stores them in its config.json.

    Attributes:
        steps: number of updates (paper, section 4: 90k); 'auto': computed from `epochs`.
        epochs: passes over the training images, for steps='auto'; 'auto': see `auto_steps`.
        auto_steps: (epochs, minimum number of updates) of a run whose `steps` and `epochs` are
            'auto': this many passes over the images, but at least this many updates (12 epochs: the
            1x schedule of detectron2 and MMDetection).
        batch_size: images per update over all devices (paper: 16). 'auto': as many as fit, at most
            16 per device, by the compiler's memory plan (training/auto_batch_size.py).
        memory_limit: memory limit of each device in GiB, for batch_size='auto'; 'auto': the memory
            of the device, or of the machine for a CPU.
        log_every: updates between two lines of the log.
        checkpoint_every: updates between two checkpoints. Another one is written at the end and
            before each evaluation.
        keep_checkpoints: number of latest checkpoints to keep.
        evaluate_every: updates between two evaluations; 'none' evaluates only at the end; 'auto'
            evaluates after each epoch, but at most ten times.
        patience: number of evaluations in a row without a better AP (the first metric) after which
            the run ends early; 'none' runs all steps. In both cases, WORKDIR/best/ has the best
            checkpoint.
        max_skipped: maximum number of consecutive updates that are skipped because the loss or the
            gradient is not finite; one more ends the run. 0, as in detectron2 and torchvision's
            references, ends the run at the first one.
        watchdog_minutes: minutes without progress after which the log says where the run hangs;
            'none' switches the watchdog off.
        loggers: loggers of metrics, images and settings, in addition to metrics.jsonl:
            'tensorboard', 'wandb', 'mlflow', or names from `add_logger` (training/loggers.py).
        profile_steps: first and last step of a trace, such as (10, 15), which is written to
            WORKDIR/profile for Perfetto or TensorBoard; () writes none.
    """

    steps: int | str = 90_000
    epochs: float | str = "auto"
    auto_steps: tuple[float, int] = (12.0, 1_000)
    batch_size: int | str = 16
    memory_limit: float | str = "auto"
    log_every: int = 50
    checkpoint_every: int = 5_000
    keep_checkpoints: int = 3
    evaluate_every: int | str | None = None
    patience: int | None = None
    max_skipped: int = 0
    watchdog_minutes: float | None = 10.0
    loggers: tuple[str, ...] = ("tensorboard",)
    profile_steps: tuple[int, ...] = ()

    def __post_init__(self):
        for name in self.loggers:
            one_of("train.loggers", name, LOGGERS)
        first_and_last = len(self.profile_steps) == 2 and list(self.profile_steps) == sorted(
            self.profile_steps
        )
        if self.profile_steps and not (first_and_last and self.profile_steps[0] >= 1):
            raise ValueError(
                f"train.profile_steps: {self.profile_steps} must be the first and last step to "
                "trace, such as (10, 15)"
            )
        for field in ("steps", "batch_size", "log_every", "checkpoint_every", "keep_checkpoints"):
            value = getattr(self, field)
            if value != "auto" and value < 1:
                raise ValueError(f"train.{field}: {value} must be at least 1")
        for field in ("epochs", "memory_limit"):
            value = getattr(self, field)
            if value != "auto" and value <= 0:
                raise ValueError(f"train.{field}: {value} must be above 0")
        if self.epochs != "auto" and self.steps != "auto":
            raise ValueError(
                f"train.epochs: {self.epochs:g} and train.steps: {self.steps} are both set; write "
                "'auto' for one of them"
            )
        if len(self.auto_steps) != 2 or min(self.auto_steps) <= 0:
            raise ValueError(
                f"train.auto_steps: {self.auto_steps} must be the number of epochs and the minimum "
                "number of steps, such as (12.0, 1000)"
            )
        if self.max_skipped < 0:
            raise ValueError(f"train.max_skipped: {self.max_skipped} must be at least 0")
        above_zero_or_none(self, "train", "evaluate_every", "patience", "watchdog_minutes")
        if self.patience is not None and self.evaluate_every is None:
            raise ValueError(
                f"train.patience: {self.patience} requires evaluations during the run; set "
                "train.evaluate_every to a number or 'auto'"
            )

    def saves_after(self, step: int) -> bool:
        """Whether a checkpoint is due after update `step`; states are saved before evaluation."""
        every = self.checkpoint_every
        return step % every == 0 or step == self.steps or self.evaluates_after(step)

    def evaluates_after(self, step: int) -> bool:
        """Whether an evaluation is due after update `step`, before the end of the run."""
        every = self.evaluate_every
        return every is not None and step % every == 0 and step < self.steps


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How a checkpoint is evaluated.

    Attributes:
        metric: 'coco' (twelve numbers), 'voc' (11-point and all-point AP at IoU .5), 'lvis' or
            'open_images' (metrics/federated.py, by hotcoco), or a name from `add_metric`.
        backend: implementation of 'coco': 'pycocotools', the official one, or 'hotcoco', which
            gives the same numbers in a thirtieth of the time (pip install 'retinanet_jax[fast]').
        batch_size: images per batch over all devices.
        limit: maximum number of images, evenly spread, for evaluations during training; the
            evaluation at the end uses all images. 'none': always all images.
        example_images: number of images drawn with ground truth beside detections.
        example_min_score: lowest score of the detections drawn; AP counts all detections.
    """

    metric: str = "coco"
    backend: str = "pycocotools"
    batch_size: int = 16
    limit: int | None = None
    example_images: int = 8
    example_min_score: float = 0.4

    def __post_init__(self):
        one_of("evaluation.metric", self.metric, METRICS)
        check_backend(self.backend)
        check_federated(self.metric)
        above_zero_or_none(self, "evaluation", "limit")
        if self.batch_size < 1:
            raise ValueError(f"evaluation.batch_size: {self.batch_size} must be at least 1")
        if self.example_images < 0:
            raise ValueError(f"evaluation.example_images: {self.example_images} must be at least 0")
        if not 0 <= self.example_min_score <= 1:
            raise ValueError(
                f"evaluation.example_min_score: {self.example_min_score} is not between 0 and 1"
            )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How the parameters are updated. The defaults are detectron2's RetinaNet schedule.

    Attributes:
        name: 'sgd' (with momentum like torch.optim.SGD, which the public baselines use), 'adamw',
            or a name from `add_optimizer`.
        learning_rate: rate for a batch of `base_batch_size` images; the rate used is
            learning_rate * batch / base_batch_size for sgd (linear scaling, Goyal et al. 2017) and
            learning_rate * sqrt(batch / base_batch_size) for others (Malladi et al. 2022). 'auto':
            found by a range test before the first step (training/learning_rate_test.py).
        base_batch_size: images per update for which `learning_rate` was chosen (paper: 16).
        momentum: momentum of sgd; adamw uses beta1 .9, beta2 .999.
        nesterov: whether sgd uses Nesterov momentum.
        weight_decay: L2 penalty for sgd (added to the gradient, as in torch), decoupled for adamw.
        decay: what is decayed: 'all' (including norms and biases, as in the paper's code and
            torchvision v1) or 'kernels'.
        schedule: 'step', 'cosine' (to zero), 'constant', or a name from `add_schedule`.
        decay_at: for 'step', the fractions of the run at which the rate is multiplied by
            `decay_factor`. Paper, section 4: 60k and 80k of 90k updates.
        decay_factor: factor of the rate at each `decay_at`.
        warmup_steps: updates over which the rate rises linearly from `warmup_factor` of its value.
        warmup_factor: factor at the first update: .001 in detectron2, 1/3 in Detectron.
        gradient_clip: maximum global norm of the gradient, or 'none'.
        backbone_factor: learning rate of the backbone relative to the rest. A factor below 1
            preserves pretrained features under adamw (DETR, arXiv 2005.12872, section 4: 0.1).
            'auto': 1 without pretrained weights; with them .3 under live batch norm, else .1.
        stage_decay: layer-wise decay of the learning rate (ELECTRA, arXiv 2003.10555; BEiT, arXiv
            2106.08254) by stages of a ResNet: it multiplies the rate of layer4, its square that of
            layer3, ..., its fifth power that of the stem, in addition to backbone_factor. 1 turns
            it off.
        accumulate_steps: number of parts in which a batch is processed: less memory, same update.
            train.batch_size must be a multiple of it times the number of devices.
        ema_decay: decay of an exponential moving average of the weights, which evaluation then
            uses, or 'none'. The first updates use min(decay, (1 + step) / (10 + step)).
    """

    name: str = "sgd"
    learning_rate: float | str = 0.01
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
    gradient_clip: float | None = None
    backbone_factor: float = 1.0
    stage_decay: float = 1.0
    accumulate_steps: int = 1
    ema_decay: float | None = None

    def __post_init__(self):
        one_of("optimizer.name", self.name, OPTIMIZERS)
        one_of("optimizer.decay", self.decay, ("all", "kernels"))
        one_of("optimizer.schedule", self.schedule, SCHEDULES)
        for field, low, high, rule in (
            ("learning_rate", 0, None, "above 0, such as 0.01"),
            ("base_batch_size", 0, None, "at least 1"),
            ("accumulate_steps", 0, None, "at least 1"),
            ("decay_factor", 0, 1, "between 0 and 1"),
        ):
            value = getattr(self, field)
            if value == "auto":
                continue
            if not (low < value and (high is None or value < high)):  # NaN is neither
                raise ValueError(f"optimizer.{field}: {value} must be {rule}")
        for field in ("weight_decay", "warmup_steps", "warmup_factor", "backbone_factor"):
            if not getattr(self, field) >= 0:
                fix = " or 'auto'" if field == "backbone_factor" else ""
                value = getattr(self, field)
                raise ValueError(f"optimizer.{field}: {value} must be at least 0{fix}")
        if not 0 < self.stage_decay <= 1:
            raise ValueError(
                f"optimizer.stage_decay: {self.stage_decay} is not in (0, 1], e.g. 0.8"
            )
        above_zero_or_none(self, "optimizer", "gradient_clip", "ema_decay")
        if self.ema_decay is not None and self.ema_decay >= 1:
            raise ValueError(f"optimizer.ema_decay: {self.ema_decay} must be below 1, e.g. 0.999")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"optimizer.momentum: {self.momentum} must be in [0, 1)")
        if not all(0 < at < 1 for at in self.decay_at) or list(self.decay_at) != sorted(
            self.decay_at
        ):
            raise ValueError(
                f"optimizer.decay_at: {self.decay_at} must be increasing fractions of the run "
                "between 0 and 1, such as (0.667, 0.889)"
            )
