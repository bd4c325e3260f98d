"""unCLIP App. C: the CLIP that is inverted, ViT-H/16. Variants: see VARIANTS.

dalle2 train --config configs/clip.py:small --data SHARDS --workdir runs/clip
"""

from ml_collections import ConfigDict


def paper():
    """ViT-H/16 at 256 px, text 24 x 1024, as published; 32,768 pairs a step."""
    image = {"size": 256, "patch": 16, "width": 1280, "depth": 32, "heads": 16}
    text = {"vocab": 49408, "context": 256, "width": 1024, "depth": 24, "heads": 16}
    return ConfigDict(
        {
            "stage": "clip",
            "model": {"clip": 1024, "image": image, "text": text, "dtype": "bfloat16"},
            "optim": {
                "rate": 3e-4,
                "warmup": 2000,
                "final": 0.0,
                "beta2": 0.98,
                "eps": 1e-6,
                "decay": 0.2,
                "ema": 0.9999,
            },
            "data": {"size": 256, "context": 256},
            "batch": 32768,
            "steps": 400_000,
            "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
            "save_every": 2000,
        }
    )


def small():
    """The quickstart's: 32 px, a convolutional stem, a head over all tokens.

    With 8 x 8 patches and a class token an embedding this small never learnt shape,
    though its retrieval looked healthy; batches keep neighbours that differ in one
    attribute together (data.group), which makes each attribute count.
    """
    config = paper()
    config.model = {
        "clip": 64,
        "image": {
            "size": 32,
            "patch": 8,
            "width": 64,
            "depth": 1,
            "heads": 4,
            "activation": "gelu",
            "stem": "conv",
            "head": "tokens",
        },
        "text": {
            "vocab": 640,
            "context": 20,
            "width": 64,
            "depth": 2,
            "heads": 4,
            "activation": "gelu",
        },
        "dtype": "float32",
    }
    config.optim.update(rate=2e-3, warmup=50, final=0.01, decay=0.5, ema=0.99)
    config.data = {"size": 64, "context": 20, "group": 2}
    config.update(batch=256, steps=700, vocab=640, save_every=200, log_every=20)
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    return config


def emoji():
    """For a thousand real pictures: names never seen as pairs, so no neighbours."""
    config = small()
    config.model.text.vocab = 2048
    config.data.group = 1
    config.update(vocab=2048, steps=600)
    return config


VARIANTS = {"paper": paper, "small": small, "emoji": emoji}


def get_config(variant="paper"):
    """The ConfigDict of a variant."""
    return VARIANTS[variant]()
