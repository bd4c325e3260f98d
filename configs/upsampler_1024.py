"""unCLIP Table 3, column "256 -> 1024": the second upsampler. Variants: see VARIANTS.

dalle2 train --config configs/upsampler_1024.py:small --data SHARDS --workdir runs/up_2
"""

from ml_collections import ConfigDict


def paper():
    """192 channels x (1, 1, 2, 2, 4, 4), trained on quarter-size crops, BSR as input.

    Whether the paper's BSR was the full recipe or "bsr_light" is not known.
    """
    return ConfigDict(
        {
            "stage": "upsampler_2",
            "model": {
                "size": 1024,
                "factor": 4,
                "unet": {
                    "channels": 192,
                    "multiples": (1, 1, 2, 2, 4, 4),
                    "depth": 2,
                    "attend": (),
                    "out_channels": 3,
                    "remat": True,
                    "dtype": "bfloat16",
                },
            },
            "noise": {"schedule": "linear", "steps": 1000, "predicts": "eps"},
            "corrupt": {"kind": "bsr", "crop": 0.25},
            "sampling": {"steps": "15", "sampler": "ddim", "eta": 0.0, "clip": 1.0},
            "optim": {
                "rate": 1.0e-4,
                "warmup": 2000,
                "clip": 1.0,
                "ema": 0.9999,
            },
            "data": {"size": 1024, "context": 256},
            "batch": 512,
            "steps": 1_000_000,
            "mesh": {"data": -1, "fsdp": -1, "tensor": 1},
            "save_every": 2000,
            "sample_every": 10_000,
        }
    )


def small():
    """64 -> 128 px behind the quickstart's cascade; pictures of 128 px and more."""
    config = paper()
    config.model = {
        "size": 128,
        "factor": 2,
        "residual": True,
        "unet": {
            "channels": 32,
            "multiples": (1, 2),
            "depth": 1,
            "attend": (),
            "out_channels": 3,
            "patch": 2,
            "dtype": "float32",
        },
    }
    config.noise.predicts = "x0"
    config.corrupt = {"kind": "bsr_light", "crop": 0.25}
    config.sampling.steps = "4"
    config.optim.update(rate=2e-3, warmup=50, final=0.05, ema=0.99)
    config.data = {"size": 128, "context": 20}
    config.update(batch=32, steps=450, save_every=200, log_every=20)
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    return config


VARIANTS = {"paper": paper, "small": small}


def get_config(variant="paper"):
    """The ConfigDict of a variant."""
    return VARIANTS[variant]()
