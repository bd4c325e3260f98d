"""unCLIP Table 3, column "AR prior". Variants: see VARIANTS.

dalle2 train --config configs/prior_autoregressive.py:small --data SHARDS --model MODEL
    --workdir runs/autoregressive
"""

from ml_collections import ConfigDict


def paper():
    """Text encoder 24 x 2048, latent decoder 24 x 1664, 319 codes of 1024 buckets."""
    return ConfigDict(
        {
            "stage": "autoregressive",
            "model": {
                "clip": 1024,
                "codes": 319,
                "buckets": 1024,
                "dots": 1024,
                "context": 256,
                "text_width": 1024,
                "encoder": {
                    "width": 2048,
                    "depth": 24,
                    "heads": 32,
                    "remat": True,
                    "dtype": "bfloat16",
                },
                "decoder": {
                    "width": 1664,
                    "depth": 24,
                    "heads": 26,
                    "remat": True,
                    "dtype": "bfloat16",
                },
            },
            "codes_from": 200_000,
            "corrupt": {"drop_text": 0.1},
            "sampling": {"guidance": 1.0, "temperature": 1.0, "percentile": 50.0},
            "optim": {
                "rate": 1.6e-4,
                "warmup": 2000,
                "beta2": 0.91,
                "eps": 1e-10,
                "decay": 0.04,
                "clip": 0.5,
                "ema": 0.999,
            },
            "data": {"size": 256, "context": 256},
            "batch": 4096,
            "steps": 1_000_000,
            "mesh": {"data": -1, "fsdp": -1, "tensor": 1},
            "save_every": 2000,
        }
    )


def small():
    """For the quickstart's world: 48 of 64 components (99 % of the variance)."""
    config = paper()
    config.model = {
        "clip": 64,
        "codes": 48,
        "buckets": 64,
        "dots": 64,
        "context": 20,
        "text_width": 64,
        "encoder": {"width": 96, "depth": 1, "heads": 4},
        "decoder": {"width": 96, "depth": 2, "heads": 4},
    }
    config.codes_from = 8192
    config.sampling = {"guidance": 1.5, "temperature": 1.0, "percentile": 50.0}
    config.optim.update(rate=2e-3, warmup=30, final=0.02, beta2=0.99, clip=1.0)
    config.optim.update(eps=1e-8, decay=0.01, ema=0.99)
    config.data = {"size": 32, "context": 20}
    config.update(batch=128, steps=600, save_every=200, log_every=20)
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    return config


VARIANTS = {"paper": paper, "small": small}


def get_config(variant="paper"):
    """The ConfigDict of a variant."""
    return VARIANTS[variant]()
