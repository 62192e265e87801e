"""Writes the .pth files of this folder with torch; version 2.13.0 wrote them.

    pip install torch==2.13.0 numpy
    python tests/golden/make_torch_files.py

tests/test_weights_readers.py has their contents again, in numpy.
"""

import argparse
from pathlib import Path

import numpy as np
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


def training_checkpoint() -> dict:
    """All that a training script might save, after a step of AdamW."""
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([0.5, -2.0]).reshape(2, 1, 1, 1))
    average = torch.optim.swa_utils.AveragedModel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.0))
    model(torch.ones(1, 1, 2, 2)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.StepLR(torch.optim.SGD(model.parameters(), 0.1), 8)
    return {
        "model": model.state_dict(),
        "model_ema": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": schedule,
        "args": argparse.Namespace(lr=0.1, device=torch.device("cpu"), dtype=torch.float8_e4m3fn),
        "rng": (torch.get_rng_state(), np.random.default_rng(0)),
        "complex": torch.complex(torch.ones(2), torch.ones(2)).conj(),
        "sparse": torch.eye(3).to_sparse(),
        "uint16": torch.zeros(2, dtype=torch.uint16),
        "epoch": 3,
    }


def main() -> None:
    """Writes all files."""
    checkpoint = {"model": state_dict(), "iteration": 7, "meta": {"CLASSES": ("cat", "dog")}}
    torch.save(checkpoint, FOLDER / "torch_zip.pth")
    torch.save(checkpoint, FOLDER / "torch_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(training_checkpoint(), FOLDER / "torch_training.pth")


if __name__ == "__main__":
    main()
