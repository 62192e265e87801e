"""Writes torch_zip.pth and torch_legacy.pth with torch (2.13.0 wrote those in this folder).

    pip install torch==2.13.0 numpy
    python tests/golden/make_torch_files.py

What they hold is spelled out again, in numpy, in tests/test_weights_readers.py.
"""

from pathlib import Path

import torch

FOLDER = Path(__file__).parent


def state_dict() -> dict:
    """Views, a parameter, tied weights, half precision, a scalar, and a module's own state dict."""
    base = torch.arange(24.0).reshape(4, 6) / 7
    norm = torch.nn.BatchNorm2d(2)
    state = norm.state_dict(prefix="norm.")
    state["base"] = state["tied"] = base
    state["transposed"] = base.t()
    state["slice"] = base[1:3, ::2]
    state["expanded"] = base[0, 1].expand(3)
    state["parameter"] = torch.nn.Parameter(base * 2)
    state["bfloat16"], state["float16"] = base.bfloat16(), base.half()
    state["float64"], state["flags"] = base.double(), base > 1
    state["empty"] = torch.zeros(0, 3)
    return state


def main() -> None:
    """Writes both files."""
    checkpoint = {"model": state_dict(), "iteration": 7, "meta": {"CLASSES": ("cat", "dog")}}
    torch.save(checkpoint, FOLDER / "torch_zip.pth")
    torch.save(checkpoint, FOLDER / "torch_legacy.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
