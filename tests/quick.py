"""Flags with which XLA compiles quickly for CPUs: most programs of the tests run a few times only.

They switch off LLVM's optimizations and generate fusions by XLA's older, simpler emitters. XLA's
own passes stay. A training step of the small network compiles in a fifth of the time, and its
numbers differ by rounding.
"""

from importlib.metadata import version

FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if version("jaxlib").startswith("0.10."):  # later ones end the process: an unknown flag
    FLAGS += " --xla_cpu_use_fusion_emitters=false"


def xla_flags(devices: int) -> str:
    """XLA_FLAGS of a process with this many simulated devices."""
    return f"{FLAGS} --xla_force_host_platform_device_count={devices}"
