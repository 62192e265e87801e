"""Plans a run: compiles its programs for each canvas, one after the other."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from jax.sharding import Mesh

from retinanet_jax.config.settings import Config, ConfigError, check_batch_size
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.training.auto_batch_size import MOST
from retinanet_jax.training.plan.chips import GIB, Chip
from retinanet_jax.training.plan.largest_batch import MEMORY_SHARE, memory_line, other_batch
from retinanet_jax.training.plan.program_plan import ProgramPlan, plan_program
from retinanet_jax.training.plan.run_programs import lower_program, run_canvases

Canvas = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class PlannedProgram:
    """One program of a run.

    Attributes:
        mode: 'train' or 'predict'.
        canvas: height and width of the images, pixels.
        images: images per chip.
        plan: the compiler's plan.
        largest: images per chip that fit, estimated from a second plan; None if not requested.
        checked: images per chip of a third plan, which fits according to the line through the first
            two.
        check: the third plan; None if not requested. If it is too large, `largest` is estimated
            from the line through the first and the third plan.
    """

    mode: str
    canvas: Canvas
    images: int
    plan: ProgramPlan
    largest: int | None = None
    checked: int = 0
    check: ProgramPlan | None = None


@dataclasses.dataclass(frozen=True)
class RunPlanner:
    """The settings that the plans of a run share.

    Attributes:
        config: configuration of the run.
        num_classes: number of classes of its dataset.
        chip: chip that the compiler plans for.
        mesh: mesh of such chips.
        log: function that is called with a line before and after each compilation.
        datasets: datasets by mode, if they are read; they decide the canvas of a mode that has only
            one.
    """

    config: Config
    num_classes: int
    chip: Chip
    mesh: Mesh
    log: Callable[[str], object]
    datasets: Mapping[str, Dataset] = dataclasses.field(default_factory=dict)

    @property
    def limit(self) -> float:
        """Bytes of a chip that a program may need at most."""
        return MEMORY_SHARE * self.chip.memory

    def canvases(self, mode: str, canvas: Canvas | None = None) -> list[Canvas]:
        """Returns the canvases of a mode, or the given canvas."""
        if canvas is not None:
            return [canvas]
        return run_canvases(self.config, mode, self.datasets.get(mode))

    def images(self, mode: str, images: int | None = None) -> int:
        """Returns the images per chip: the given number, or that of the config.

        Raises:
            ConfigError: the batch cannot be divided evenly over the chips.
        """
        size, parts = self.mesh.size, self._parts(mode)
        if images is not None:
            if images < 1 or images % parts:
                nearest = max(1, round(images / parts)) * parts
                raise ConfigError(
                    f"--images={images}: not a multiple of {parts} "
                    f"(config.optimizer.accumulate_steps); write {nearest}"
                )
            return images
        section = "train" if mode == "train" else "evaluation"
        batch_size = getattr(self.config, section).batch_size
        if batch_size == "auto":
            return max(1, MOST // parts) * parts
        check_batch_size(batch_size, size, f"config.{section}.batch_size", parts)
        return batch_size // size

    def plan(
        self, mode: str, canvas: Canvas, images: int, *, largest: bool, check: bool
    ) -> PlannedProgram:
        """Plans a program with `images` on each chip.

        Args:
            mode: 'train' or 'predict'.
            canvas: height and width of the images, in pixels.
            images: images per chip.
            largest: whether to estimate the largest batch from a second plan.
            check: whether to compile the largest batch as well.
        """
        first = self._compile(mode, canvas, images)
        found = PlannedProgram(mode, canvas, images, first)
        if not largest:
            return found
        parts = self._parts(mode)
        other = other_batch(images, first.memory, self.limit, parts)
        second = self._compile(mode, canvas, other)
        if first.memory == second.memory:  # a network of a few kilobytes
            return found
        line = memory_line((images, first.memory), (other, second.memory))
        most = line.largest(self.limit, parts)
        if not check or most in (0, images):
            return dataclasses.replace(found, largest=most)
        third = self._compile(mode, canvas, most)
        found = dataclasses.replace(found, checked=most, check=third)
        if third.memory > self.limit:
            line = memory_line((images, first.memory), (most, third.memory))
            most = line.largest(self.limit, parts)
        return dataclasses.replace(found, largest=most)

    def _parts(self, mode: str) -> int:
        return self.config.optimizer.accumulate_steps if mode == "train" else 1

    def _compile(self, mode: str, canvas: Canvas, images: int) -> ProgramPlan:
        what = f"{mode}, {canvas[0]}x{canvas[1]}, {images} images a chip"
        self.log(f"compiling {what}")
        batch_size = images * self.mesh.size
        lowered = lower_program(mode, self.config, self.num_classes, self.mesh, canvas, batch_size)
        plan = plan_program(lowered, self.chip)
        self.log(f"{what}: {plan.memory / GIB:.2f} GiB, compiled in {plan.compile_seconds:.0f} s")
        return plan


def plan_run(
    planner: RunPlanner,
    modes: tuple[str, ...],
    canvas: Canvas | None = None,
    images: int | None = None,
    *,
    largest: bool = True,
    check: bool = False,
) -> Iterator[PlannedProgram]:
    """Plans the programs of a run; checks all input before it compiles the first program.

    Args:
        planner: configuration and chips.
        modes: 'train', 'predict' or both.
        canvas: the only canvas to plan for; None: all canvases of the config.
        images: images per chip; None: as many as in the config.
        largest, check: see `RunPlanner.plan`.
    """
    cases = [
        (mode, one, planner.images(mode, images))
        for mode in modes
        for one in planner.canvases(mode, canvas)
    ]
    for case in cases:
        yield planner.plan(*case, largest=largest, check=check)
