"""What the accelerators can do, as their makers publish it."""

from typing import NamedTuple


class Chip(NamedTuple):
    """One chip.

    kinds: the device kinds that jax reports, exact; peak: dense bfloat16 flop/s; hbm:
    bytes (of TPUs: that the compiler gives to programs); hbm_bandwidth: bytes/s; ici:
    bytes/s that it sends to its neighbours over all links together (NVLink for GPUs);
    devices: jax devices per chip in a compile-only topology, each with its share of the
    above.
    """

    kinds: tuple
    peak: float
    hbm: float
    hbm_bandwidth: float
    ici: float
    devices: int = 1


CHIPS = {
    "v4": Chip(("TPU v4",), 275e12, 31.25 * 2**30, 1.2e12, 6 * 45e9, 2),
    "v5e": Chip(("TPU v5 lite", "TPU v5e"), 197e12, 15.75 * 2**30, 0.82e12, 4 * 45e9),
    "v5p": Chip(("TPU v5", "TPU v5p"), 459e12, 95.74 * 2**30, 2.77e12, 6 * 90e9),
    "v6e": Chip(("TPU v6 lite", "TPU v6e"), 918e12, 31.25 * 2**30, 1.64e12, 4 * 90e9),
    "a100": Chip(
        (
            "NVIDIA A100-SXM4-80GB",
            "NVIDIA A100-SXM4-40GB",
            "NVIDIA A100 80GB PCIe",
            "NVIDIA A100-PCIE-40GB",
        ),
        312e12,
        80e9,
        2.04e12,
        300e9,
    ),
    "h100": Chip(("NVIDIA H100 80GB HBM3",), 989e12, 80e9, 3.35e12, 450e9),
    "h200": Chip(("NVIDIA H200",), 989e12, 141e9, 4.8e12, 450e9),
}
KINDS = {kind: chip for chip in CHIPS.values() for kind in chip.kinds}


def peak_of(device):
    """Dense bfloat16 flop/s of a jax device at work; None where it is not known."""
    chip = KINDS.get(device.device_kind)
    return chip and chip.peak
