"""unCLIP Table 3, column "64 -> 256": no attention, no caption. Variants: see VARIANTS.

dalle2 train --config configs/upsampler_256.py:small --data SHARDS --workdir runs/up
"""

from ml_collections import ConfigDict


def paper():
    """320 channels x (1, 2, 3, 4), trained on quarter-size crops of blurred input."""
    return ConfigDict(
        {
            "stage": "upsampler",
            "model": {
                "size": 256,
                "factor": 4,
                "unet": {
                    "channels": 320,
                    "multiples": (1, 2, 3, 4),
                    "depth": 3,
                    "attend": (),
                    "out_channels": 3,
                    "dropout": 0.1,
                    "remat": True,
                    "dtype": "bfloat16",
                },
            },
            "noise": {"schedule": "cosine", "steps": 1000, "predicts": "eps"},
            "corrupt": {"blur": 0.5, "crop": 0.25},
            "sampling": {"steps": "fast27", "sampler": "ddim", "eta": 0.0, "clip": 1.0},
            "optim": {
                "rate": 1.2e-4,
                "warmup": 2000,
                "clip": 1.0,
                "ema": 0.9999,
            },
            "data": {"size": 256, "context": 256},
            "batch": 1024,
            "steps": 1_000_000,
            "mesh": {"data": -1, "fsdp": -1, "tensor": 1},
            "save_every": 2000,
            "sample_every": 10_000,
        }
    )


def karlo():
    """Karlo's sizes, 691,579,523 parameters: bicubic enlargement, time is added.

    Karlo's last step has a network of its own: train it as stage "upsampler_last".
    """
    config = paper()
    config.model.resize = "bicubic"
    config.model.unet.update(scale_shift=False, dropout=0.0)
    config.sampling = {"steps": "7", "clip": 1.0}
    return config


def small():
    """The quickstart's: 16 -> 64 px, x_0 as a residual on the enlarged picture."""
    config = paper()
    config.model = {
        "size": 64,
        "factor": 4,
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
    config.corrupt = {"blur": 0.5, "noise": 0.05, "crop": 0.5}
    config.sampling.steps = "4"
    config.optim.update(rate=2e-3, warmup=50, final=0.05, ema=0.99)
    config.data = {"size": 64, "context": 20}
    config.update(batch=32, steps=450, save_every=200, log_every=20)
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    return config


def emoji():
    """For a thousand real pictures, seen again and again."""
    config = small()
    config.update(steps=300, sample_every=300)
    return config


VARIANTS = {"paper": paper, "karlo": karlo, "small": small, "emoji": emoji}


def get_config(variant="paper"):
    """The ConfigDict of a variant."""
    return VARIANTS[variant]()
