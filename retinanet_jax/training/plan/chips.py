"""Descriptions of chips, for which XLA compiles on a machine that does not have them.

Memory, rates and bandwidth come from the vendors: Google's pages on TPU v5e and v6e, and NVIDIA's
data sheets of the H100 SXM and H200 SXM (dense rates). The fields of the GPU targets are the ones
that XLA reads from such a device (xla/stream_executor/device_description.proto).
"""

import dataclasses
import importlib.util
import os
import re

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from retinanet_jax.config.settings import ConfigError
from retinanet_jax.runtime.mesh import make_mesh
from retinanet_jax.training.model_flops import PEAKS

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """A kind of accelerator.

    Attributes:
        name: the name in --chip.
        platform: 'tpu' or 'cuda'.
        kinds: names that JAX gives to the device.
        memory: bytes that programs may use.
        bandwidth: bandwidth of the main memory, bytes/s.
        rate: rate of matrix products in bfloat16, operations/s.
        float32_rate: rate of float32 matrix products at model.precision 'default'.
        highest_rate: rate of float32 matrix products at model.precision 'highest'.
        clock: cycles/s of a TPU's matrix units; 0 for a GPU.
    """

    name: str
    platform: str
    kinds: tuple[str, ...]
    memory: float
    bandwidth: float
    rate: float
    float32_rate: float
    highest_rate: float
    clock: float = 0.0


# XLA's client takes this share of a GPU's memory unless XLA_PYTHON_CLIENT_MEM_FRACTION is set.
GPU_SHARE = 0.75


def _tpu(name: str, kinds: tuple[str, ...], memory: float, bandwidth: float, clock: float) -> Chip:
    """A float32 product is one pass of bfloat16 by default and six at 'highest'."""
    rate = PEAKS[f"TPU {name}"]
    return Chip(name, "tpu", kinds, memory, bandwidth, rate, rate, rate / 6, clock)


def _gpu(name: str, kind: str, memory: float, bandwidth: float) -> Chip:
    """A float32 product is TF32 by default."""
    rate = PEAKS[name.upper()]
    return Chip(name, "cuda", (kind,), GPU_SHARE * memory, bandwidth, rate, 494e12, 67e12)


# libtpu refuses programs above 15.75 and 31.25 GiB. Clocks: the published rate over the operations
# of four matrix units a cycle, 2 x 4 x 128^2 and 2 x 4 x 256^2.
CHIPS = {
    chip.name: chip
    for chip in (
        _tpu("v5e", ("TPU v5 lite", "TPU v5e"), 15.75 * GIB, 819e9, 1.503e9),
        _tpu("v6e", ("TPU v6 lite", "TPU v6e"), 31.25 * GIB, 1640e9, 1.751e9),
        _gpu("h100", "NVIDIA H100 80GB HBM3", 84_942_979_072, 3350e9),
        _gpu("h200", "NVIDIA H200", 151_397_597_184, 4800e9),
    )
}

# Of both GPUs (compute capability 9.0), for the compiler.
_GPU_FIELDS = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "threads_per_core_limit": 2048,
    "shared_memory_per_block": 49_152,
    "shared_memory_per_block_optin": 232_448,
    "shared_memory_per_core": 233_472,
    "registers_per_block_limit": 65_536,
    "registers_per_core_limit": 65_536,
    "core_count": 132,
    "fpus_per_core": 128,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 65_535,
    "block_dim_limit_z": 65_535,
    "l2_cache_size": 50 * 2**20,
    "clock_rate_ghz": 1.98,
}
EXTRAS = {"tpu": ("plan-tpu", ("libtpu",)), "cuda": ("plan-gpu", ("xla_cuda13", "xla_cuda12"))}
EXAMPLES = {"tpu": "2x4", "cuda": "8"}


def chip_of_device(device: jax.Device) -> Chip | None:
    """Returns the chip of a device; None for other devices."""
    return next((chip for chip in CHIPS.values() if device.device_kind in chip.kinds), None)


def read_chip(text: str) -> tuple[Chip, str]:
    """Parses a chip and its layout, such as 'v5e:2x4' or 'h200:8'.

    Raises:
        ConfigError: an unknown chip or an invalid layout; the message has a valid one.
    """
    name, _, layout = text.partition(":")
    if (chip := CHIPS.get(name.lower())) is None:
        known = ", ".join(f"{one.name}:{EXAMPLES[one.platform]}" for one in CHIPS.values())
        raise ConfigError(f"--chip={text}: unknown chip; write one of {known}")
    pattern = r"[1-9]\d*x[1-9]\d*" if chip.platform == "tpu" else r"[1-9]\d*"
    if not re.fullmatch(pattern, layout):
        what = "a slice, XxY chips" if chip.platform == "tpu" else "a number of GPUs"
        example = f"{chip.name}:{EXAMPLES[chip.platform]}"
        raise ConfigError(f"--chip={text}: {layout!r} is not {what}; write {example}")
    return chip, layout


def hide_devices() -> None:
    """Hides this machine's accelerators from JAX; call it before JAX starts any device."""
    os.environ["JAX_PLATFORMS"], os.environ["CUDA_VISIBLE_DEVICES"] = "cpu", ""
    jax.config.update("jax_platforms", "cpu")


def described_mesh(text: str) -> tuple[Chip, Mesh]:
    """Returns the chip of 'v5e:2x4' or 'h200:8', and a mesh of all chips of that slice or host.

    The compiler provides the descriptions; neither a local device nor a cloud server is contacted.

    Raises:
        ConfigError: as in `read_chip`, or the compiler is not installed.
    """
    chip, layout = read_chip(text)
    _check_installed(chip)
    try:
        return chip, make_mesh(_describe(chip, layout))
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
        example = f"{chip.name}:{EXAMPLES[chip.platform]}"
        raise ConfigError(f"--chip={text}: {str(error).splitlines()[0]}; try {example}") from error


def _describe(chip: Chip, layout: str) -> list[jax.Device]:
    if chip.platform == "cuda":
        options = {"platform": "cuda", "topology_name": "", "target_config": gpu_target(chip)}
        return topologies.get_topology_desc(**options, topology=f"1x1x{layout}").devices
    # libtpu would ask the metadata server of a cloud for its chip, and lock it.
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    # The default is hosts of 2x2 chips.
    host = {"chips_per_host_bounds": (1, 1, 1)} if layout == "1x1" else {}
    name = f"{chip.name}:{layout}"
    return topologies.get_topology_desc(platform="tpu", topology_name=name, **host).devices


def gpu_target(chip: Chip) -> str:
    """Returns the GpuTargetConfigProto of a GPU in text form."""
    fields = _GPU_FIELDS | {
        "memory_bandwidth": int(chip.bandwidth),
        "device_memory_size": int(chip.memory / GPU_SHARE),
    }
    lines = [f"{name}: {value}" for name, value in fields.items()]
    return "\n".join(
        (
            "gpu_device_info {",
            *lines,
            "cuda_compute_capability { major: 9 }",
            "}",
            'platform_name: "CUDA"',
            "dnn_version_info { major: 9 minor: 10 patch: 0 }",
            f'device_description_str: "{chip.kinds[0]}"',
        )
    )


def _check_installed(chip: Chip) -> None:
    """Raises ConfigError with the extra that has the compiler, if it is not installed."""
    extra, modules = EXTRAS[chip.platform]
    parent = "jax_plugins." if chip.platform == "cuda" else ""
    try:
        found = any(importlib.util.find_spec(parent + name) for name in modules)
    except ModuleNotFoundError:  # no package jax_plugins
        found = False
    if not found:
        raise ConfigError(
            f"--chip={chip.name}: its compiler is not installed; pip install "
            f"'retinanet_jax[{extra}]'"
        )
