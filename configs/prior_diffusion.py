"""unCLIP Table 3, column "Diffusion prior". Variants: see VARIANTS.

dalle2 train --config configs/prior_diffusion.py:small --data SHARDS --model MODEL
    --workdir runs/prior
"""

from ml_collections import ConfigDict


def paper():
    """24 layers of width 2048 over [caption, z_t, time, z_noised, query]; x_0, MSE."""
    return ConfigDict(
        {
            "stage": "prior",
            "model": {
                "clip": 1024,
                "width": 2048,
                "depth": 24,
                "heads": 32,
                "context": 256,
                "text_width": 1024,
                "scale": 17.2,
                "remat": True,
                "dtype": "bfloat16",
            },
            "noise": {"schedule": "cosine", "steps": 1000, "predicts": "x0"},
            "corrupt": {"drop_text": 0.1},
            "sampling": {"steps": "64", "guidance": 1.0, "sampler": "analytic"},
            "optim": {
                "rate": 1.1e-4,
                "warmup": 2000,
                "beta2": 0.96,
                "eps": 1e-6,
                "decay": 0.06,
                "clip": 0.5,
                "ema": 0.9999,
            },
            "data": {"size": 256, "context": 256},
            "batch": 4096,
            "steps": 600_000,
            "mesh": {"data": -1, "fsdp": -1, "tensor": 1},
            "save_every": 2000,
        }
    )


def karlo():
    """Karlo's sizes, 1,022,030,080 parameters, in whitened ViT-L/14 space.

    Drop and sampling as published, the rest as in the paper.
    """
    config = paper()
    config.model = {
        "clip": 768,
        "width": 2048,
        "depth": 20,
        "heads": 32,
        "context": 77,
        "text_width": 768,
        "null": "empty",
        "whiten": True,
        "dtype": "bfloat16",
    }
    config.corrupt.drop_text = 0.2
    config.sampling = {"steps": "25", "guidance": 4.0, "clip": 5.0, "candidates": 1}
    config.data.context = 77
    config.codes_from = 200_000
    return config


def small():
    """The quickstart's: two layers of width 96 over a 64-dimensional CLIP space."""
    config = paper()
    config.model = {
        "clip": 64,
        "width": 96,
        "depth": 2,
        "heads": 4,
        "context": 20,
        "text_width": 64,
        "scale": 0.0,
        "dtype": "float32",
    }
    config.sampling = {"steps": "25", "guidance": 1.5}
    config.optim.update(rate=2e-3, warmup=30, final=0.02, beta2=0.99, clip=1.0)
    config.optim.update(decay=0.01, ema=0.99)
    config.data = {"size": 32, "context": 20}
    config.update(batch=256, steps=300, save_every=200, log_every=20)
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    return config


def emoji():
    """For a thousand real pictures, seen again and again."""
    config = small()
    config.steps = 600
    return config


VARIANTS = {
    "paper": paper,
    "karlo": karlo,
    "small": small,
    "emoji": emoji,
}


def get_config(variant="paper"):
    """The ConfigDict of a variant."""
    return VARIANTS[variant]()
