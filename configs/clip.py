"""unCLIP App. C: the CLIP that is inverted, ViT-H/16. Variants: see VARIANTS.

The published CLIPs (vit_b_32 ... rn50x64, vit_h_14) have their sizes here and, as far
as CLIP's tables 18 to 20 give it, their training; ResNets can only be imported.

dalle2 train --config configs/clip.py:small --data SHARDS --workdir runs/clip
"""

import functools

from ml_collections import ConfigDict

# clip, pixels, patch, width, depth or blocks, width of a head; text: width, depth; rate
SIZES = {
    "vit_b_32": (512, 224, 32, 768, 12, 64, 512, 12, 5e-4),
    "vit_b_16": (512, 224, 16, 768, 12, 64, 512, 12, 5e-4),
    "vit_l_14": (768, 224, 14, 1024, 24, 64, 768, 12, 4e-4),
    "vit_l_14_336": (768, 336, 14, 1024, 24, 64, 768, 12, 2e-5),
    "vit_h_14": (1024, 224, 14, 1280, 32, 80, 1024, 24, 4e-4),
    "rn50": (1024, 224, 32, 64, (3, 4, 6, 3), 64, 512, 12, 5e-4),
    "rn101": (512, 224, 32, 64, (3, 4, 23, 3), 64, 512, 12, 5e-4),
    "rn50x4": (640, 288, 32, 80, (4, 6, 10, 6), 64, 640, 12, 5e-4),
    "rn50x16": (768, 384, 32, 96, (6, 8, 18, 8), 64, 768, 12, 4e-4),
    "rn50x64": (1024, 448, 32, 128, (3, 15, 36, 10), 64, 1024, 12, 3.6e-4),
}


def paper():
    """ViT-H/16 at 256 px, text 24 x 1024, as published; 32,768 pairs a step."""
    image = {"size": 256, "patch": 16, "width": 1280, "depth": 32, "heads": 16}
    text = {"vocab": 49408, "context": 256, "width": 1024, "depth": 24, "heads": 16}
    image["remat"] = text["remat"] = True
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
                "sam_rho": 0.1,
                "sam_group": 64,
            },
            "data": {"size": 256, "context": 256},
            "batch": 32768,
            "steps": 400_000,
            "mesh": {"data": -1, "fsdp": -1, "tensor": 1},
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
    config.optim.sam_rho = 0.0
    config.data = {"size": 64, "context": 20, "group": 2}
    config.update(batch=256, steps=700, vocab=640, save_every=200, log_every=20)
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    return config


def pairs():
    """For two objects: longer, with less decay, until colours are bound to objects.

    A small network reads both shapes and both colours from the embeddings of 66 % of
    pictures with held-out pairs after 800 steps, of 81 % after 1200, 91 % after 1600.
    """
    config = small()
    config.optim.decay = 0.2
    config.steps = 1600
    return config


def emoji():
    """For a thousand real pictures: names never seen as pairs, so no neighbours."""
    config = small()
    config.model.text.vocab = 2048
    config.data.group = 1
    config.update(vocab=2048, steps=600)
    return config


def published(name):
    """A released CLIP: 32 epochs of 400M pairs, one more at 336 px (vit_l_14_336).

    vit_h_14 is OpenCLIP's (exact GELU, heads of 80); its training here is L/14's.
    """
    clip, size, patch, width, layers, head, text_width, text_depth, rate = SIZES[name]
    resnet = isinstance(layers, tuple)
    activation = "gelu" if name == "vit_h_14" else "quick_gelu"
    config = paper()
    config.model.clip = clip
    config.model.image = {
        "size": size,
        "patch": patch,
        "width": width,
        "depth": sum(layers) if resnet else layers,
        "heads": width * (32 if resnet else 1) // head,
        "activation": activation,
        "blocks": layers if resnet else (),
    }
    config.model.text = {
        "vocab": 49408,
        "context": 77,
        "width": text_width,
        "depth": text_depth,
        "heads": text_width // 64,
        "activation": activation,
    }
    config.optim.update(rate=rate, sam_rho=0.0)
    if resnet:
        config.optim.update(beta2=0.999, eps=1e-8)
    config.data = {"size": size, "context": 77}
    config.steps = 12_207 if name == "vit_l_14_336" else 390_625
    return config


def noised():
    """GLIDE's noise-aware CLIP: ViT-L with 4 x 4 patches at 64 px."""
    config = published("vit_l_14")
    config.stage = "noised_clip"
    config.noise = {"schedule": "cosine", "steps": 1000}
    config.model.image.update(size=64, patch=4, activation="gelu")
    config.model.text.activation = "gelu"
    config.optim.decay = 0.0125
    config.data.size = 64
    config.steps = 390_000
    return config


def noised_small():
    """For the quickstart's decoder of 16 px and a model directory with a tokenizer."""
    config = small()
    config.stage = "noised_clip"
    config.noise = {"schedule": "cosine", "steps": 1000}
    image = {"size": 16, "patch": 4, "width": 64, "depth": 2, "heads": 4}
    config.model.image = {**image, "activation": "gelu", "stem": "conv"}
    config.model.scale = 20.0
    config.data.size = 32
    config.vocab = 0
    return config


VARIANTS = {"paper": paper, "small": small, "pairs": pairs, "emoji": emoji}
VARIANTS |= {"noised": noised, "noised_small": noised_small}
VARIANTS |= {name: functools.partial(published, name) for name in SIZES}


def get_config(variant="paper"):
    """The ConfigDict of a variant."""
    return VARIANTS[variant]()
