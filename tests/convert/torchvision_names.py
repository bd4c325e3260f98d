"""torch beside a torchvision that was built for another torch, as on CPU machines."""

import contextlib
import importlib

import torch

try:
    importlib.import_module("torchvision")
except RuntimeError:  # its operators are absent; importers only need their names
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):
            torch.library.define(
                f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor"
            )
