"""Parity of the metrics: recorded numbers of the reference packages.

The families of `convert.parity` and these two are all that `dalle2 parity` knows.
"""

import json

import jax
import numpy as np
from safetensors import safe_open

from dalle2_jax.convert import parity
from dalle2_jax.convert.inception import inception_table
from dalle2_jax.convert.rename import import_params
from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.frechet import frechet_distance, moments
from dalle2_jax.evaluate.inception import SCALES, digest, inception_shapes
from dalle2_jax.evaluate.inception_network import SIZE, InceptionNetwork, conv_names
from dalle2_jax.evaluate.kernel import cmmd, cubic, mmd2, rbf
from dalle2_jax.evaluate.resize import legacy_tf

TAPS = {  # name in the file -> field of Taps
    "64": "low_64",
    "192": "low_192",
    "768": "low_768",
    "2048": "pool",
    "logits_unbiased": "logits",
    "logits": "biased",
}
ROWS = [0, 1, 2, 5, 150, 297, 298]  # of the resized picture that the file has
DRAWS = {  # end of a key -> a standard normal z and the tensor's shape -> its values
    ".conv.weight": lambda z, shape: z * np.sqrt(2 / np.prod(shape[1:])),
    ".bn.weight": lambda z, shape: 1 + 0.1 * z,
    ".bn.bias": lambda z, shape: 0.1 * z,
    ".bn.running_mean": lambda z, shape: 0.1 * z,
    ".bn.running_var": lambda z, shape: 1 + 0.1 * z * z,
    "fc.weight": lambda z, shape: 0.05 * z,
    "fc.bias": lambda z, shape: 0.1 * z,
}


def drawn_state(shapes, seed):
    """Made-up weights of the port: keys in order, one PCG64 stream of normals.

    Args:
        shapes: {key of the port's state dict: shape}.
        seed: of the stream.

    Returns:
        {key: float32 array}; counters of batches are left out and draw nothing.
    """
    rng, state = np.random.Generator(np.random.PCG64(seed)), {}
    for key in sorted(shapes):
        for end, values in DRAWS.items():
            if key.endswith(end):
                z = rng.standard_normal(shapes[key])
                state[key] = values(z, shapes[key]).astype(np.float32)
    return state


def inception_fid(case):
    """torch_fidelity's FeatureExtractorInceptionV3; its weights come from a recipe.

    Raises:
        BadInput: the recipe gives other weights than the file was made with.
    """
    with safe_open(case.path, framework="numpy") as file:
        metadata = file.metadata()
    state = drawn_state(json.loads(metadata["param_shapes"]), int(metadata["seed"]))
    if digest(state) != metadata["param_sha256"]:
        raise BadInput(f"{case.path}: its recipe no longer gives its weights.")
    rows = inception_table(conv_names())
    params = import_params(state, rows, inception_shapes(), case.path)
    network = jax.jit(InceptionNetwork().apply)
    found = {}
    for name in "ab":
        images = case.inputs[f"images_{name}"].transpose(0, 2, 3, 1)
        pixels = SCALES["legacy_tf"](legacy_tf(images, SIZE))
        taps = network({"params": params}, pixels)._asdict()
        found |= {f"{name}/{theirs}": taps[ours] for theirs, ours in TAPS.items()}
    return found | {"b/resized_rows": pixels.transpose(0, 3, 1, 2)[:, :, ROWS]}


def fid_kid_cmmd(case):
    """Fréchet distance and both kernels, in float64; features are whole 32nds."""
    found = {}
    for group in {name.partition("/")[0] for name in case.inputs}:
        x, y = (case.inputs[f"{group}/{side}_int8"] / 32 for side in "xy")
        found |= {f"{group}/{name}": np.float64(v) for name, v in _numbers(x, y)}
    return found


def _numbers(x, y):
    a, b = moments(x), moments(y)
    fid, mean = frechet_distance(a, b), ((a.mean - b.mean) ** 2).sum()
    traces = np.trace(a.covariance + b.covariance)
    unit_x, unit_y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    wide = rbf(10)
    yield "fid", fid
    yield "fid_mean_term", mean
    yield "fid_trace_sqrt", (mean + traces - fid) / 2
    yield "fid_self", frechet_distance(a, a)
    yield "kid_unbiased", mmd2(cubic, x, y)
    yield "kid_biased", mmd2(cubic, x, y, biased=True)
    yield "kid_unbiased_first_half", mmd2(cubic, x[:250], y[:250])
    yield "cmmd_unbiased", 1000 * mmd2(wide, x, y)
    yield "cmmd_biased", 1000 * mmd2(wide, x, y, biased=True)
    yield "cmmd_normalized_unbiased", 1000 * mmd2(wide, unit_x, unit_y)
    yield "cmmd_normalized_biased", cmmd(x, y)


FAMILIES = parity.FAMILIES | {
    "fid_kid_cmmd": fid_kid_cmmd,
    "inception_fid": inception_fid,
}


def check(path, tolerance=1e-4):
    """`convert.parity.check` with the families of the metrics as well."""
    return parity.check(path, tolerance, FAMILIES)
