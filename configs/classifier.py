"""ADM's classifier of noised pictures (Dhariwal and Nichol 2021), to guide a decoder.

dalle2 train --config configs/classifier.py:small --data SHARDS --model MODEL
    --workdir runs/classifier
dalle2 sample "a large circle" --model MODEL --classifier-guidance 3 --label red
"""

from ml_collections import ConfigDict

from dalle2_jax.data.shapes import COLOURS


def paper():
    """ADM's for 64 px, on the noise of decoder_64.

    Labels are numbers in KEY.cls; of a data set of TFDS that has labels,
    --data tfds:imagenet2012:train --config.data.caption=label. The rate falls along a
    cosine where ADM's falls along a line, and pictures are cut from their middle where
    ADM's are cut at random.
    """
    return ConfigDict(
        {
            "stage": "classifier",
            "model": {
                "size": 64,
                "unet": {
                    "channels": 128,
                    "multiples": (1, 2, 3, 4),
                    "depth": 4,
                    "attend": (2, 4, 8),
                    "head_width": 64,
                    "out_channels": 1000,
                    "remat": True,
                    "dtype": "bfloat16",
                },
            },
            "noise": {"schedule": "cosine", "steps": 1000},
            "optim": {"rate": 3e-4, "final": 0.0, "decay": 0.05, "ema": 0.9999},
            "data": {"size": 64, "context": 1, "caption": "cls"},
            "batch": 256,
            "steps": 300_000,
            "mesh": {"data": -1, "fsdp": -1, "tensor": 1},
            "save_every": 2000,
        }
    )


def small():
    """For the quickstart's decoder of 16 px: the colour of what `simple` shows."""
    config = paper()
    config.model = {
        "size": 16,
        "unet": {
            "channels": 16,
            "multiples": (1, 2, 4),
            "depth": 1,
            "attend": (4,),
            "head_width": 16,
            "groups": 8,
            "out_channels": len(COLOURS),
            "dtype": "float32",
        },
    }
    config.noise.time_power = 0.7
    config.optim.update(rate=2e-3, warmup=50, final=0.01, ema=0.99)
    config.data.update(size=32, caption="things.0.colour", classes=tuple(COLOURS))
    config.update(batch=64, steps=1000, save_every=500, log_every=50)
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    return config


VARIANTS = {"paper": paper, "small": small}


def get_config(variant="paper"):
    """The ConfigDict of a variant."""
    return VARIANTS[variant]()
