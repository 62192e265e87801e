"""The compiler's plan of one program for one chip: memory, collectives, kernels, time."""

import dataclasses
import re
import time
from collections import Counter

import jax

from retinanet_jax.training.plan.chips import Chip
from retinanet_jax.training.plan.program_text import (
    collectives,
    collectives_in_loops,
    estimated_cycles,
    kernels,
)

# What large copies and large matrix products reach of a GPU's published bandwidth and rate.
BANDWIDTH_SHARE, RATE_SHARE = 0.85, 0.8

_NETWORK = re.compile(r"RetinaNet\)*/(\w+)")
_OUT_OF_MEMORY = re.compile(r"\((\d+\.?\d*)([MG])\) exceeds|Used (\d+\.?\d*)([MG]) of")


@dataclasses.dataclass(frozen=True)
class ProgramPlan:
    """The compiler's plan for each chip.

    Attributes:
        memory: bytes of arguments, results, temporary arrays and code.
        temporary: bytes of temporary arrays, which are a part of `memory`.
        compiled: False if the program needs more memory than the compiler accepts; the attributes
            below are then empty.
        collectives: number of collectives by kind; those in loops count once.
        in_loops: number of collectives that a loop repeats.
        kernels: number of kernels that the program starts; a loop counts as one.
        times: seconds by part of the work, such as 'backbone, convolutions'. On a TPU, the
            compiler's estimated cycles, with the body of a loop counted once. On a GPU, a lower
            bound from the bytes and operations of each kernel. Empty for other devices.
        cycles: cycles that libtpu estimates; 0 for other devices.
        compile_seconds: seconds that the compilation took on this machine.
    """

    memory: int
    temporary: int
    compiled: bool = True
    collectives: Counter[str] = dataclasses.field(default_factory=Counter)
    in_loops: int = 0
    kernels: int = 0
    times: Counter[str] = dataclasses.field(default_factory=Counter)
    cycles: int = 0
    compile_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of all parts together; 0 if not known."""
        return sum(self.times.values())

    def bottleneck(self) -> tuple[str, float] | None:
        """The part that takes the most time, and its seconds."""
        return max(self.times.items(), key=lambda item: item[1], default=None)


def needed_memory(compiled: jax.stages.Compiled) -> int:
    """Returns the bytes per device: arguments, results, temporary arrays and code."""
    memory = compiled.memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
        - memory.alias_size_in_bytes
    )


def plan_program(lowered: jax.stages.Lowered, chip: Chip) -> ProgramPlan:
    """Compiles a program for a described chip, and reads the plan."""
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        seconds = time.perf_counter() - start
        if (found := _OUT_OF_MEMORY.search(str(error))) is None:
            raise
        number, unit = (text for text in found.groups() if text)
        needed = int(float(number) * {"M": 2**20, "G": 2**30}[unit])
        return ProgramPlan(needed, needed, compiled=False, compile_seconds=seconds)
    seconds = time.perf_counter() - start
    return dataclasses.replace(read_plan(compiled, chip), compile_seconds=seconds)


def read_plan(compiled: jax.stages.Compiled, chip: Chip | None) -> ProgramPlan:
    """Reads the plan of a compiled program; without a chip, times are not known."""
    text = compiled.as_text()
    memory = needed_memory(compiled), compiled.memory_analysis().temp_size_in_bytes
    cycles = estimated_cycles(text)
    return ProgramPlan(
        *memory,
        collectives=collectives(text),
        in_loops=collectives_in_loops(text),
        kernels=sum(1 for _ in kernels(text)),
        times=_times(text, cycles, chip) if chip else Counter(),
        cycles=sum(cycles.values()),
    )


def _times(text: str, cycles: Counter[str], chip: Chip) -> Counter[str]:
    times: Counter[str] = Counter()
    if chip.platform == "tpu":
        for name, count in cycles.items():
            kind = "convolutions" if "conv_general_dilated" in name else "other work"
            times[f"{part_of(name)}, {kind}"] += count / chip.clock
        return times
    for kernel in kernels(text):
        rate = chip.rate if kernel.dtype in ("bf16", "f16") else chip.float32_rate
        rate = chip.highest_rate if kernel.highest else rate
        kind = "convolutions" if kernel.operations else "other work"
        times[f"{part_of(kernel.op_name)}, {kind}"] += max(
            kernel.moved / (BANDWIDTH_SHARE * chip.bandwidth),
            kernel.operations / (RATE_SHARE * rate),
        )
    return times


def part_of(op_name: str) -> str:
    """Returns the part of a run's program to which an operation of JAX belongs.

    Args:
        op_name: name of the operation, such as
            'jit(train_step)/transpose(jvp(RetinaNet))/backbone/layer1_0/max'.
    """
    trains = op_name.startswith("jit(train_step)")
    if found := _NETWORK.search(op_name):
        part = found[1]
    elif not op_name:
        part = "copies"
    elif "jit(nms)" in op_name:
        part = "NMS"
    elif "jvp()" in op_name:
        part = "loss"
    elif "shard_map" in op_name or not trains:
        part = "matching" if trains else "top-k and decoding"
    else:
        part = "update"
    return f"gradient of {part}" if "transpose(jvp" in op_name else part
