"""Model directories: what they hold, written whole or not at all, read strictly.

`dalle2.json` names the format and the components; each component is a folder with
`config.json` (the run that made it), `model.safetensors` (EMA weights under their
paths, "block_0/mlp/up/kernel") and their checksum, which `sha256sum -c` reads as well.
Nothing that is loaded here can run code.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dalle2_jax import __version__
from dalle2_jax.clip import contrastive, noised
from dalle2_jax.clip.contrastive import Clip, ClipConfig
from dalle2_jax.clip.noised import NoisedClip, NoisedClipConfig
from dalle2_jax.config import build
from dalle2_jax.decoder import classifier, decoder, upsampler
from dalle2_jax.decoder.classifier import Classifier, ClassifierConfig
from dalle2_jax.decoder.decoder import Decoder, DecoderConfig
from dalle2_jax.decoder.upsampler import Upsampler, UpsamplerConfig
from dalle2_jax.diffusion.schedule import Noise
from dalle2_jax.errors import BadInput
from dalle2_jax.files import replacing
from dalle2_jax.layers.init import init_params, param_shapes
from dalle2_jax.layers.unet import UNetConfig
from dalle2_jax.prior import autoregressive, dalle2_pytorch, diffusion
from dalle2_jax.prior.autoregressive import Autoregressive, AutoregressiveConfig
from dalle2_jax.prior.dalle2_pytorch import Dalle2PytorchConfig, Dalle2PytorchPrior
from dalle2_jax.prior.diffusion import Prior, PriorConfig
from dalle2_jax.shard.processes import barrier, is_first, whole

FORMAT = 1
CHECKSUM = "model.safetensors.sha256"  # may be absent: then nothing is compared
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}  # of inference
FEW_BLOCKS = 256  # as many are built unasked; a missing key says more than a count
ELEMENTS = {  # safetensors' names of the element types that we read
    *("F64", "F32", "F16", "BF16", "BOOL"),
    *(f"{sign}{bits}" for sign in "IU" for bits in (8, 16, 32, 64)),
}
FLOATS = ("float64", "float32", "float16", "bfloat16")  # of saved weights
NO_NETWORK = (  # what flax and jax raise of impossible sizes: they have no common class
    *(TypeError, ValueError, AssertionError, ArithmeticError, LookupError),
    *(AttributeError, FlaxError),
)
STAGES = {  # configuration, network, shapes of its arguments
    "clip": (ClipConfig, Clip, contrastive.example),
    "noised_clip": (NoisedClipConfig, NoisedClip, noised.example),
    "prior": (PriorConfig, Prior, diffusion.example),
    "prior_dalle2_pytorch": (
        Dalle2PytorchConfig,
        Dalle2PytorchPrior,
        dalle2_pytorch.example,
    ),
    "autoregressive": (AutoregressiveConfig, Autoregressive, autoregressive.example),
    "decoder": (DecoderConfig, Decoder, decoder.example),
    "upsampler": (UpsamplerConfig, Upsampler, upsampler.example),
    # another network for the last step of the upsampler's walk (Karlo)
    "upsampler_last": (UpsamplerConfig, Upsampler, upsampler.example),
    "upsampler_2": (UpsamplerConfig, Upsampler, upsampler.example),  # 256 -> 1024
    # relatives: pictures from captions alone, from labels, and labels of pictures
    "glide": (DecoderConfig, Decoder, decoder.example),
    "glide_upsampler": (DecoderConfig, Decoder, decoder.example),
    "adm": (DecoderConfig, Decoder, decoder.example),
    "adm_upsampler": (DecoderConfig, Decoder, decoder.example),
    "classifier": (ClassifierConfig, Classifier, classifier.example),
}


class Component(NamedTuple):
    """One network: configuration, noise process (None if it has none) and weights."""

    cfg: Any
    noise: Any
    params: Any
    config: dict  # all of config.json


def save_component(folder, stage, config, params):
    """Writes one component; an earlier one of the same name is replaced as a whole.

    Every process of a run calls it; the first one writes.

    Args:
        folder: the model directory; made when absent.
        stage: a name of STAGES.
        config: JSON-able; must hold `model` and, for diffusion stages, `noise`.
        params: nested dict of arrays, any sharding.
    """
    # safetensors 0.8.0 writes wrong values for strided arrays, hence contiguous.
    flat = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        leaf = np.asarray(whole(leaf), order="C")
        if is_first():
            flat[_name(path)] = leaf
    if is_first():
        _write_component(Path(folder), stage, config, flat)
    barrier("component written")


def _write_component(folder, stage, config, flat):
    new = folder / f".{stage}.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    weights = new / "model.safetensors"
    save_file(flat, weights, metadata={"format": "dalle2_jax"})
    (new / CHECKSUM).write_text(f"{file_sha256(weights)}  {weights.name}\n")
    write_json(new / "config.json", config)
    shutil.rmtree(folder / stage, ignore_errors=True)
    os.replace(new, folder / stage)
    _register(folder)


def load_component(folder, stage, dtype=None):
    """Reads one component of a model directory; its arrays stay on the host.

    Args:
        folder: the model directory.
        stage: a name of STAGES.
        dtype: as in `cast`; default: the weights as saved.

    Raises:
        BadInput: it is absent, damaged, other than its checksum says, or its weights do
            not fit its configuration.
    """
    where = Path(folder) / stage
    config = read_json(
        where / "config.json", f"`dalle2 train` writes {stage} components"
    )
    cfg = build(STAGES[stage][0], config.get("model"), f"{where}/config.json: model")
    noise = config.get("noise")
    if noise is not None:
        square = {"eps_square": config.get("eps_square", ())}
        noise = noise | square if isinstance(noise, dict) else noise
        noise = build(Noise, noise, f"{where}/config.json: noise")
    flat = load_arrays(where / "model.safetensors", "export it again")
    check_fits(cfg, len(flat), where)
    _check(where, flat, expected_shapes(stage, cfg, f"{where}/config.json"))
    check_weights(where)
    part = Component(cfg, noise, unflatten(flat), config)
    return cast(part, dtype) if dtype else part


def cast(part, dtype):
    """The component with its weights in `dtype`, and computing in it.

    Vectors stay float32, and so do norms, softmax, schedules and outputs when it runs.

    Raises:
        BadInput: dtype is none of DTYPES.
    """

    cfg = computing_in(part.cfg, dtype)

    def one(leaf):
        return np.asarray(leaf, DTYPES[dtype] if leaf.ndim > 1 else np.float32)

    return part._replace(cfg=cfg, params=jax.tree.map(one, part.params))


def computing_in(cfg, dtype):
    """A configuration in which every field named `dtype`, at any depth, is `dtype`.

    Raises:
        BadInput: dtype is none of DTYPES.
    """
    if dtype not in DTYPES:
        raise BadInput(f"dtype must be one of {', '.join(DTYPES)}, not {dtype}.")
    changed = {"dtype": dtype} if hasattr(cfg, "dtype") else {}
    for field in dataclasses.fields(cfg):
        value = getattr(cfg, field.name)
        if dataclasses.is_dataclass(value):
            changed[field.name] = computing_in(value, dtype)
    return dataclasses.replace(cfg, **changed)


def initial_params(stage, cfg, seed):
    """First parameters of a stage's network, a function of seed and sizes alone."""
    _, network, example = STAGES[stage]
    return init_params(network(cfg), seed, *example(cfg))


def shapes_of(stage, cfg, where=None):
    """The parameter tree of a stage as ShapeDtypeStructs; allocates nothing.

    where: what errors call the configuration.

    Raises:
        BadInput: the sizes of cfg make no network.
    """
    _, network, example = STAGES[stage]
    try:
        return param_shapes(network(cfg), *example(cfg))
    except BadInput:
        raise
    except NO_NETWORK as error:
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise BadInput(
            f"{where or stage}: impossible sizes ({reason}); they make no network."
        ) from error


def expected_shapes(stage, cfg, where=None):
    """{"a/b/c": shape} of a stage's parameters; as `shapes_of`."""
    named = jax.tree_util.tree_flatten_with_path(shapes_of(stage, cfg, where))[0]
    return {_name(path): leaf.shape for path, leaf in named}


def check_fits(cfg, count, where):
    """Refuses a configuration of more blocks than there are arrays to fill them.

    Blocks are built one by one; a number that is wrong by millions would take all
    memory before a shape is compared. cfg: of a stage; count: of arrays.

    Raises:
        BadInput: names the field.
    """
    for field in dataclasses.fields(cfg):
        value = getattr(cfg, field.name)
        if dataclasses.is_dataclass(value):
            check_fits(value, count, where)
    blocks = {"blocks": sum(getattr(cfg, "blocks", ()))}
    if isinstance(cfg, UNetConfig):
        blocks = {"depth": cfg.depth * len(cfg.multiples)}
    for name, asked in blocks.items():
        if asked > max(count, FEW_BLOCKS):
            raise BadInput(
                f"{where}: {type(cfg).__name__}.{name} asks for {asked:,} blocks, and "
                f"there are {count:,} arrays; they are not of one model."
            )


def components_of(folder):
    """The stages that a model directory holds, in the order of the cascade."""
    return [s for s in STAGES if (Path(folder) / s / "config.json").is_file()]


def flatten(tree):
    """Nested dict -> {"a/b/c": host array}."""
    named = jax.tree_util.tree_flatten_with_path(jax.device_get(tree))[0]
    return {_name(path): leaf for path, leaf in named}


def unflatten(flat):
    """{"a/b/c": array} -> nested dict."""
    tree = {}
    for name, leaf in flat.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def load_arrays(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """{key: array} of a safetensors file.

    Raises:
        BadInput: absent, damaged, or with elements of a type beyond ELEMENTS (float8,
            complex, ...); names the file, the key and the remedy.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            kinds = {key: file.get_slice(key).get_dtype() for key in [*file.keys()]}
            strange = sorted(k for k in kinds if kinds[k] not in ELEMENTS)
            arrays = {} if strange else {key: file.get_tensor(key) for key in kinds}
    except (OSError, ValueError, SafetensorError) as error:
        raise BadInput(
            f"{path} cannot be read: it is incomplete or damaged ({error}); {remedy}."
        ) from error
    if strange:
        raise BadInput(
            f"{path}: {strange[0]} is of type {kinds[strange[0]]}, which is not "
            "supported; save it as float32, float16 or bfloat16."
        )
    return arrays


def read_json(path, remedy):
    """The object in a JSON file.

    Raises:
        BadInput: absent, no JSON or no object; names the file and the remedy.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise BadInput(f"{path} does not exist; {remedy}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} is no readable JSON ({error}); {remedy}.") from error
    if not isinstance(found, dict):
        raise BadInput(f"{path} holds no JSON object; {remedy}.")
    return found


def write_json(path, value):
    """Writes JSON so that a reader sees the old file or the new one, never a half."""
    with replacing(path) as draft:
        draft.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _check(where, flat, shapes):
    """Every parameter there, none too many, all of the right shape."""
    for name, shape in shapes.items():
        if name not in flat:
            raise BadInput(f"{where}/model.safetensors lacks {name}; export it again.")
        if flat[name].shape != shape:
            raise BadInput(
                f"{where}/model.safetensors: {name} is {flat[name].shape}, its "
                f"config.json asks for {shape}; they are not of one run."
            )
        if flat[name].dtype.name not in FLOATS:
            raise BadInput(
                f"{where}/model.safetensors: {name} holds {flat[name].dtype}, and "
                "weights are floats; export it again."
            )
    extra = sorted(set(flat) - set(shapes))
    if extra:
        raise BadInput(
            f"{where}/model.safetensors holds {extra[0]}, which no layer uses."
        )


def check_weights(where):
    """Refuses a component's weights that are not those of the checksum beside them.

    Raises:
        BadInput: the file is damaged.
    """
    noted, weights = where / CHECKSUM, where / "model.safetensors"
    digest = file_sha256(weights).encode()
    if noted.is_file() and noted.read_bytes().split()[:1] != [digest]:
        raise BadInput(
            f"{weights} is damaged: its SHA-256 is not that of {CHECKSUM}; copy or "
            "export it again (or delete the checksum, if you changed the weights)."
        )


def file_sha256(path):
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def params_sha256(params):
    """SHA-256 of a tree of weights: their paths, types, shapes and bytes.

    By it embeddings are recognised as those of one CLIP, whatever file held it.
    """
    found = hashlib.sha256()
    for name, leaf in sorted(flatten(params).items()):
        found.update(f"{name} {leaf.dtype} {leaf.shape}".encode())
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()


def _name(path):
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _register(folder):
    value = {
        "format": FORMAT,
        "written_by": f"dalle2_jax {__version__}",
        "components": components_of(folder),
    }
    write_json(folder / "dalle2.json", value)
