"""Tables of the ADM U-Net: guided-diffusion's spelling and that of diffusers.

One walk over the blocks of our U-Net gives both; a spelling is a way to name a block
and the leaves inside it.
"""

from typing import NamedTuple

from dalle2_jax.convert.fields import (
    COUNT,
    FLAG,
    LARGEST,
    LAYERS,
    NUMBER,
    POSITIVE,
    SIZE,
    check_fields,
    list_of,
    optional,
    whole,
)
from dalle2_jax.convert.rename import (
    CONV,
    CONV_1,
    LINEAR,
    SAME,
    Row,
    flat_paths,
    fused,
    norm,
    weights,
)
from dalle2_jax.decoder.classifier import ClassifierConfig
from dalle2_jax.decoder.decoder import DecoderConfig
from dalle2_jax.diffusion.schedule import Noise
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.unet import UNetConfig

GUIDED_TOP = ("time_embed.0", "time_embed.2", "input_blocks.0.0", "out.0", "out.2")
DIFFUSERS_TOP = (
    "time_embedding.linear_1",
    "time_embedding.linear_2",
    "conv_in",
    "conv_norm_out",
    "conv_out",
)
RES_LEAVES = [  # guided-diffusion, diffusers, ours
    ("in_layers.0", "norm1", "norm_1"),
    ("in_layers.2", "conv1", "conv_1"),
    ("emb_layers.1", "time_emb_proj", "time"),
    ("out_layers.0", "norm2", "norm_2"),
    ("out_layers.3", "conv2", "conv_2"),
    ("skip_connection", "conv_shortcut", "skip"),
]
SIDE = {"image_size": SIZE}
UNET_FIELDS = {
    "model_channels": SIZE,
    "channel_mult": list_of(POSITIVE, 1, 16),
    "num_res_blocks": LAYERS,
    "attention_resolutions": list_of(COUNT),
    "num_head_channels": optional(whole(-1, LARGEST)),
    "num_heads": optional(SIZE),
    "in_channels": SIZE,
    "out_channels": SIZE,
    "encoder_channels": optional(COUNT),
    "num_classes": optional(COUNT),
    "use_scale_shift_norm": optional(FLAG),
    "resblock_updown": optional(FLAG),
    "use_new_attention_order": optional(FLAG),
    "dropout": optional(NUMBER),
    "low_res": optional(COUNT),
}
MIDDLE_ONLY = (0,)  # UNetConfig.attend: no level has this factor, the middle attends

MULTIPLES = {  # of a U-Net made for pictures of that size
    64: (1, 2, 3, 4),
    128: (1, 1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (0.5, 1, 1, 2, 2, 4, 4),
}


class Published(NamedTuple):
    """A released file. arguments: of the original's constructor; low_res and
    round_low_res are ours. noise: the process it was trained on, None: a classifier's
    is that of the model it guides.
    """

    stage: str
    arguments: dict
    noise: Noise | None


def _arguments(size, channels, depth, pixels, classes, out_channels=6):
    """Constructor arguments that all of guided-diffusion's files share.

    pixels: sides of the grids with attention.
    """
    return {
        "image_size": size,
        "in_channels": 3,
        "model_channels": channels,
        "out_channels": out_channels,
        "num_res_blocks": depth,
        "attention_resolutions": [size // side for side in pixels],
        "channel_mult": MULTIPLES[size],
        "num_classes": classes,
        "num_head_channels": 64,
        "use_scale_shift_norm": True,
        "resblock_updown": True,
    }


LINEAR_NOISE = Noise("linear", learned_variance=True)
COSINE_NOISE = Noise("cosine", learned_variance=True)
GRIDS = (32, 16, 8)
FOUR_HEADS = {"num_head_channels": -1, "num_heads": 4}
WIDE_ENDS = {"channel_mult": MULTIPLES[256]}  # the 512 px upsampler's too
DROPOUT = {"dropout": 0.1}


def _adm(size, classes=1000, change=()):
    arguments = {**_arguments(size, 256, 2, GRIDS, classes), **dict(change)}
    return Published("adm", arguments, LINEAR_NOISE)


def _upsampler(size, low_res, grids, change):
    arguments = {**_arguments(size, 192, 2, grids, 1000), "low_res": low_res, **change}
    return Published("adm_upsampler", arguments, LINEAR_NOISE)


def _classifier(size, depth=2):
    arguments = _arguments(size, 128, depth, GRIDS, None, out_channels=1000)
    return Published("classifier", arguments, None)


_SMALLEST = {
    **_arguments(64, 192, 3, GRIDS, 1000),
    "use_new_attention_order": True,
    **DROPOUT,
}
GUIDED_FILES = {
    "64x64_diffusion.pt": Published("adm", _SMALLEST, COSINE_NOISE),
    "128x128_diffusion.pt": _adm(128, change=FOUR_HEADS),
    "256x256_diffusion.pt": _adm(256),
    "256x256_diffusion_uncond.pt": _adm(256, None),
    "512x512_diffusion.pt": _adm(512),
    "64_256_upsampler.pt": _upsampler(256, 64, GRIDS, FOUR_HEADS),
    "128_512_upsampler.pt": _upsampler(512, 128, (32, 16), WIDE_ENDS),
    "lsun_bedroom.pt": _adm(256, None, DROPOUT),
    "lsun_cat.pt": _adm(256, None, DROPOUT),
    "lsun_horse.pt": _adm(256, None, DROPOUT),
    "lsun_horse_nodropout.pt": _adm(256, None),
    "64x64_classifier.pt": _classifier(64, depth=4),
    "128x128_classifier.pt": _classifier(128),
    "256x256_classifier.pt": _classifier(256),
    "512x512_classifier.pt": _classifier(512),
}


class Place(NamedTuple):
    """One block of the U-Net. kind: "res", "attention" or "conv" (plain up, down)."""

    kind: str
    ours: str
    guided: str
    diffusers: str
    width: int


def adm_config(config, where="UNetModel"):
    """UNetConfig from the constructor arguments of guided-diffusion's UNetModel.

    Raises:
        BadInput: an argument that is no such size; names it.
    """
    check_fields(config, UNET_FIELDS, where)
    heads = (config.get("num_head_channels") or -1) == -1
    return UNetConfig(
        channels=config["model_channels"],
        multiples=tuple(config["channel_mult"]),
        depth=config["num_res_blocks"],
        attend=tuple(config["attention_resolutions"]) or MIDDLE_ONLY,
        head_width=1 if heads else config["num_head_channels"],
        heads=(config.get("num_heads") or 1) if heads else 0,
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        context_width=config.get("encoder_channels") or 0,
        classes=config.get("num_classes") or 0,
        scale_shift=bool(config.get("use_scale_shift_norm")),
        updown="resblock" if config.get("resblock_updown") else "conv",
        dropout=float(config.get("dropout") or 0.0),
    )


def decoder_config(config):
    """DecoderConfig from the arguments of UNetModel; with low_res, of SuperResModel."""
    check_fields(config, SIDE, "UNetModel")
    unet, size = adm_config(config), config["image_size"]
    return DecoderConfig(size, unet, clip=0, low_res=config.get("low_res") or 0)


def decoder_table(cfg, shapes, new_order=False):
    """Rows for a UNetModel or SuperResModel that is a Decoder of ours."""
    return guided_table(cfg.unet, shapes, new_order, "unet/")


def classifier_config(config):
    """ClassifierConfig from the constructor arguments of EncoderUNetModel.

    Raises:
        BadInput: it pools otherwise than by attention.
    """
    if config.get("pool") not in (None, "attention"):
        raise BadInput("EncoderUNetModel.pool is supported as 'attention' only.")
    check_fields(config, SIDE, "EncoderUNetModel")
    return ClassifierConfig(config["image_size"], adm_config(config))


def classifier_table(cfg, shapes, new_order=False):
    """Rows for an EncoderUNetModel; its pool has the new qkv order in any case."""
    rows = [r for r in _top(GUIDED_TOP, "") if not r.ours[0].startswith("head/")]
    way_down = [p for p in places(cfg.unet) if not p.ours.startswith("up_")]
    rows += _blocks(cfg.unet, way_down, shapes, new_order, "")
    return [
        *rows,
        *norm("out.0", "norm"),
        Row("out.2.positional_embedding", ("pool/positions",), LINEAR),
        *_fused("out.2.qkv_proj", [f"pool/{part}" for part in "qkv"], 0),
        *weights("out.2.c_proj", "pool/out", CONV_1),
    ]


def guided_table(cfg, shapes, new_order=False, ours=""):
    """Rows in guided-diffusion's spelling.

    shapes: our tree, which tells where skip convolutions are. new_order: qkv rows go
    (part, head, e) instead of (head, part, e). ours: stands before our paths.
    """
    rows = _top(GUIDED_TOP, ours)
    if cfg.classes:
        rows.append(Row("label_emb.weight", (f"{ours}label/embedding",), SAME))
    return rows + _blocks(cfg, places(cfg), shapes, new_order, ours)


def _blocks(cfg, found, shapes, new_order, ours):
    """Rows of the blocks at the places `found`, in guided-diffusion's spelling."""
    rows = []
    for place in found:
        path = ours + place.ours
        if place.kind == "res":
            rows += _res(place.guided, path, 0, flat_paths(shapes))
        elif place.kind == "conv":
            inner = "op" if "down" in place.ours else "conv"
            rows += weights(f"{place.guided}.{inner}", path, CONV)
        else:
            heads = 0 if new_order else cfg.heads_at(place.width)
            rows += _guided_attention(place.guided, path, heads, cfg.context_width)
    return rows


def diffusers_table(cfg, shapes, ours=""):
    """Rows in diffusers' spelling of the same U-Net, without classes."""
    rows = _top(DIFFUSERS_TOP, ours)
    for place in places(cfg):
        path = ours + place.ours
        if place.kind == "res":
            rows += _res(place.diffusers, path, 1, flat_paths(shapes))
        elif place.kind == "conv":
            rows += weights(f"{place.diffusers}.conv", path, CONV)
        else:
            rows += _diffusers_attention(place.diffusers, path, cfg.context_width)
    return rows


def places(cfg):
    """Every block of a U-Net with its names, from stem to head."""
    last = len(cfg.multiples) - 1
    found = [place for level in range(last + 1) for place in _down(cfg, level)]
    width = cfg.width(last)
    found.append(
        Place("res", "middle/block_0", "middle_block.0", "mid_block.resnets.0", width)
    )
    if cfg.attend:
        names = ("middle/attention", "middle_block.1", "mid_block.attentions.0")
        found.append(Place("attention", *names, width))
    entry = f"middle_block.{2 if cfg.attend else 1}"
    found.append(Place("res", "middle/block_1", entry, "mid_block.resnets.1", width))
    return found + [place for level in range(last + 1) for place in _up(cfg, level)]


def _down(cfg, level):
    width, attends = cfg.width(level), 2**level in cfg.attend
    for i in range(cfg.depth):
        ours, entry = f"down_{level}", f"input_blocks.{1 + level * (cfg.depth + 1) + i}"
        theirs = f"down_blocks.{level}"
        yield Place(
            "res", f"{ours}/block_{i}", f"{entry}.0", f"{theirs}.resnets.{i}", width
        )
        if attends:
            names = (f"{ours}/attention_{i}", f"{entry}.1", f"{theirs}.attentions.{i}")
            yield Place("attention", *names, width)
    if level < len(cfg.multiples) - 1:
        entry = f"input_blocks.{(level + 1) * (cfg.depth + 1)}.0"
        names = (f"down_{level}/down", entry, f"down_blocks.{level}.downsamplers.0")
        yield Place("res" if cfg.updown == "resblock" else "conv", *names, width)


def _up(cfg, level):
    width, attends = cfg.width(level), 2**level in cfg.attend
    order = len(cfg.multiples) - 1 - level
    ours, theirs = f"up_{level}", f"up_blocks.{order}"
    for i in range(cfg.depth + 1):
        entry = f"output_blocks.{order * (cfg.depth + 1) + i}"
        yield Place(
            "res", f"{ours}/block_{i}", f"{entry}.0", f"{theirs}.resnets.{i}", width
        )
        if attends:
            names = (f"{ours}/attention_{i}", f"{entry}.1", f"{theirs}.attentions.{i}")
            yield Place("attention", *names, width)
    if level:
        names = (f"{ours}/up", f"{entry}.{1 + attends}", f"{theirs}.upsamplers.0")
        yield Place("res" if cfg.updown == "resblock" else "conv", *names, width)


def _top(names, ours):
    """Rows outside the blocks: time embedding, stem, last norm and convolution."""
    time_in, time_out, stem, head_norm, head_conv = names
    return [
        *weights(time_in, f"{ours}time/in", LINEAR),
        *weights(time_out, f"{ours}time/out", LINEAR),
        *weights(stem, f"{ours}stem", CONV),
        *norm(head_norm, f"{ours}head/norm"),
        *weights(head_conv, f"{ours}head/conv", CONV),
    ]


def _res(theirs, ours, spelling, flat):
    rows = []
    for names in RES_LEAVES:
        theirs_leaf, path = f"{theirs}.{names[spelling]}", f"{ours}/{names[2]}"
        if names[2].startswith("norm"):
            rows += norm(theirs_leaf, path)
        elif names[2] != "skip" or f"{path}/kernel" in flat:
            layout = LINEAR if names[2] == "time" else CONV
            rows += weights(theirs_leaf, path, layout)
    return rows


def _guided_attention(theirs, ours, heads, context):
    rows = norm(f"{theirs}.norm", f"{ours}/norm")
    rows += _fused(f"{theirs}.qkv", [f"{ours}/{part}" for part in "qkv"], heads)
    if context:
        paths = [f"{ours}/context_{part}" for part in "kv"]
        rows += _fused(f"{theirs}.encoder_kv", paths, heads)
    return rows + weights(f"{theirs}.proj_out", f"{ours}/out", CONV_1)


def _fused(theirs, paths, heads):
    kernels, biases = (
        tuple(f"{path}/{leaf}" for path in paths) for leaf in ("kernel", "bias")
    )
    return [
        Row(f"{theirs}.weight", kernels, fused(len(paths), heads, CONV_1)),
        Row(f"{theirs}.bias", biases, fused(len(paths), heads, SAME)),
    ]


def _diffusers_attention(theirs, ours, context):
    rows = norm(f"{theirs}.group_norm", f"{ours}/norm")
    for part in "qkv":
        rows += weights(f"{theirs}.to_{part}", f"{ours}/{part}", LINEAR)
    for part in "kv" if context else "":
        rows += weights(f"{theirs}.add_{part}_proj", f"{ours}/context_{part}", LINEAR)
    return rows + weights(f"{theirs}.to_out.0", f"{ours}/out", LINEAR)
