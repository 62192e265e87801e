"""The time of a training step on many chips, computed from measurements on one.

    python scripts/scaling.py --train_json=train.json --infer_json=infer.json \\
        --data_json=data.json --eval_json=eval.json [--chips=8,64,512] [--FIELD=VALUE ...]

The JSON files are those of `scripts/benchmark.py NAME --json=FILE` on your machine; the first row
that fits is used. Each field of Inputs is also a flag. docs/scaling.md describes the model and the
sources of the defaults.
"""

import argparse
import dataclasses
import json
import re
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Inputs of the model; times in seconds, sizes in bytes, rates per second.

    Attributes:
        images_per_chip: images of a step on one chip.
        step_s: forward, backward and update of those images on one chip.
        predict_s: detection in one image on one chip.
        image_cpu_s: CPU time of one core to read, resize and batch one training image.
        score_image_s: time to score the detections of one image, in one process.
        gradient_bytes: size of the gradients, summed over the chips each step.
        state_bytes: size of a checkpoint.
        chips_per_host: chips that share a host's cores, memory and disk.
        cores_per_host: cores that prepare images.
        inside_bandwidth: of a chip to its neighbours in the host, bytes one way.
        outside_bandwidth: of a chip's share of the network between hosts, bytes one way.
        copy_bandwidth: of a chip to its host's memory.
        disk_bandwidth: of a host to the disk of the checkpoints.
        evaluation_images: images of an evaluation.
        images_between_evaluations: training images between two evaluations, and checkpoints.
    """

    images_per_chip: float = 16
    step_s: float = 16 / 313
    predict_s: float = 1 / 313 * 298 / 855
    image_cpu_s: float = 3.37e-3
    score_image_s: float = 0.298e-3
    gradient_bytes: float = 4 * 37_968_692
    state_bytes: float = 2 * 4 * 37_968_692
    chips_per_host: float = 8
    cores_per_host: float = 112
    inside_bandwidth: float = 450e9
    outside_bandwidth: float = 50e9
    copy_bandwidth: float = 50e9
    disk_bandwidth: float = 1e9
    evaluation_images: float = 5_000
    images_between_evaluations: float = 118_287


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Results for a number of chips; seconds.

    Attributes:
        chips: number of chips.
        batch: images of a step over all chips.
        compute: of a step on the chips.
        all_reduce: of the gradients, after the compute.
        input: time of a host's cores for its share of a batch, in parallel to the compute.
        evaluation: one evaluation, and its average share of a step.
        checkpoint: likewise; a step waits for the copy to the host, and for writing only if that
            takes longer than the time between two checkpoints.
    """

    chips: int
    batch: float
    compute: float
    all_reduce: float
    input: float
    evaluation: float
    evaluation_per_step: float
    checkpoint: float
    checkpoint_per_step: float

    def waits(self) -> dict[str, float]:
        """By name, the time of a step in addition to the compute."""
        return {
            "all-reduce": self.all_reduce,
            "input": max(0.0, self.input - self.compute - self.all_reduce),
            "evaluation": self.evaluation_per_step,
            "checkpoint": self.checkpoint_per_step,
        }

    @property
    def step(self) -> float:
        """Average time from one step to the next."""
        return self.compute + sum(self.waits().values())

    @property
    def bottleneck(self) -> str:
        """The largest time in addition to the compute."""
        return max(self.waits(), key=self.waits().get)


def estimate(chips: int, given: Inputs) -> Estimate:
    """The model of docs/scaling.md: only the input and writing checkpoints overlap with steps."""
    batch = chips * given.images_per_chip
    compute, all_reduce = given.step_s, all_reduce_s(chips, given)
    in_host = min(chips, given.chips_per_host)
    making = given.image_cpu_s * given.images_per_chip * in_host / given.cores_per_host
    steps_between = given.images_between_evaluations / batch
    predicting = given.predict_s * given.evaluation_images / chips
    evaluation = predicting + given.score_image_s * given.evaluation_images
    copying, writing = (
        given.state_bytes / rate for rate in (given.copy_bandwidth, given.disk_bandwidth)
    )
    between = steps_between * max(compute + all_reduce, making) + evaluation
    waited = copying + max(0.0, writing - between)
    return Estimate(
        *(chips, batch, compute, all_reduce, making),
        *(evaluation, evaluation / steps_between),
        *(copying + writing, waited / steps_between),
    )


def all_reduce_s(chips: int, given: Inputs) -> float:
    """All-reduce of the gradients: rings within and between hosts, by bandwidth alone.

    A ring of n moves 2 (n - 1) / n of the bytes through each link. Between hosts, each chip sums
    its part of the result of its host's ring.
    """
    inside = min(chips, given.chips_per_host)
    hosts = chips / inside
    return given.gradient_bytes * (
        2 * (inside - 1) / inside / given.inside_bandwidth
        + 2 * (hosts - 1) / hosts / inside / given.outside_bandwidth
    )


def measured(arguments: argparse.Namespace) -> dict[str, float]:
    """Inputs from the JSON files of scripts/benchmark.py."""
    found: dict[str, float] = {}
    if arguments.train_json:
        match, seconds = _first_row(arguments.train_json, r"train, .*batch (\d+)")
        found |= {"images_per_chip": float(match[1]), "step_s": seconds}
    if arguments.infer_json:
        match, seconds = _first_row(arguments.infer_json, r"infer, .*batch (\d+)")
        found["predict_s"] = seconds / int(match[1])
    if arguments.data_json:
        _, found["image_cpu_s"] = _first_row(arguments.data_json, r"CPU per image")
    if arguments.eval_json:
        match, seconds = _first_row(arguments.eval_json, r"AP of ([\d,]+) x")
        found["score_image_s"] = seconds / int(match[1].replace(",", ""))
    return found


def _first_row(path: Path, pattern: str) -> tuple[re.Match, float]:
    """The first row whose case matches: the match, and the time in seconds."""
    for row in json.loads(path.read_text(encoding="utf-8")):
        if match := re.search(pattern, row["case"]):
            return match, row["ours_s"]
    raise SystemExit(f"{path}: no row's case has the form {pattern!r}; see scripts/benchmark.py")


def print_table(estimates: list[Estimate]) -> None:
    """As Markdown."""
    columns = ("chips", "images a step", "compute, ms", "all-reduce, ms", "input, ms")
    columns += ("evaluation, s (ms a step)", "checkpoint, s (ms a step)", "step, ms")
    columns += ("images/s", "share of compute", "bottleneck")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for e in estimates:
        cells = (
            f"{e.chips}",
            f"{e.batch:,.0f}",
            *(f"{1e3 * s:.2f}" for s in (e.compute, e.all_reduce, e.input)),
            f"{e.evaluation:.2f} ({1e3 * e.evaluation_per_step:.2f})",
            f"{e.checkpoint:.2f} ({1e3 * e.checkpoint_per_step:.2f})",
            f"{1e3 * e.step:.2f}",
            f"{e.batch / e.step:,.0f}",
            f"{e.compute / e.step:.0%}",
            f"{e.bottleneck}: {1e3 * e.waits()[e.bottleneck]:.2f} ms",
        )
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chips", default="8,64,512", help="numbers of chips, by commas")
    for name in ("train", "infer", "data", "eval"):
        command = f"scripts/benchmark.py {name} --json=FILE"
        parser.add_argument(f"--{name}_json", type=Path, help=f"what {command} wrote")
    for field in dataclasses.fields(Inputs):
        parser.add_argument(f"--{field.name}", type=float, help=f"default {field.default:.6g}")
    arguments = parser.parse_args()
    flags = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Inputs)}
    flags = {name: value for name, value in flags.items() if value is not None}
    given = Inputs(**(measured(arguments) | flags))
    for name, value in dataclasses.asdict(given).items():
        print(f"{name}: {value:.6g}")
    print()
    print_table([estimate(int(chips), given) for chips in arguments.chips.split(",")])


if __name__ == "__main__":
    main()
