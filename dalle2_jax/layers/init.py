"""First values of parameters, by name and without compiling anything.

`model.init` under jit compiles a random generator per leaf, which takes longer than a
small model's whole first epoch. Here the shapes come from `jax.eval_shape` and the
values from numpy, one stream per (seed, path): the same on every machine and device
count. The table follows the initialisers in the modules; tests hold the two together.
"""

import re
import zlib

import jax
import numpy as np

from dalle2_jax.errors import BadInput


def _zeros(rng, shape):
    return np.zeros(shape, np.float32)


def _ones(rng, shape):
    return np.ones(shape, np.float32)


def _small(rng, shape):
    return 0.02 * rng.standard_normal(shape, np.float32)


def _fan_in(rng, shape):
    fan = np.prod(shape[:-1])
    return np.float32(fan**-0.5) * rng.standard_normal(shape, np.float32)


def _stacked(rng, shape):
    return np.float32(shape[0] ** 0.5) * _fan_in(rng, shape)


def _residual(rng, shape):
    return np.float32((2 * shape[0]) ** -0.5) * _stacked(rng, shape)


def _temperature(rng, shape):
    return np.full(shape, np.log(1 / 0.07), np.float32)


RULES = [  # first match wins; a stacked leaf has the depth of its stack in front
    (r".*\blayers/(attention/out|mlp/down)/kernel", _residual),
    (r".*\blayers/.*/kernel", _stacked),
    (r".*\bconv_2/kernel|.*\bhead/conv/kernel", _zeros),
    (r".*\b(down_\d+|middle|up_\d+)/attention(_\d+)?/out/kernel", _zeros),
    (r".*\bkernel", _fan_in),
    (r".*\b(bias|mean|clip_mean)", _zeros),
    (r".*\b(codes_\w+|dot_edges)", _zeros),
    (r".*\b(scale|variance|clip_std)", _ones),
    (r".*\b(embedding|positions|padding|class_token|query|null_\w+)", _small),
    (r".*\blog_scale", _temperature),
]


def param_shapes(model, *example_args):
    """The parameter tree of a module as `jax.ShapeDtypeStruct`s; allocates nothing.

    example_args: what the module is called with; arrays or ShapeDtypeStructs.
    """
    return jax.eval_shape(model.init, jax.random.key(0), *example_args)["params"]


def first_value(path, shape, seed):
    """First value of the leaf at "a/b/kernel": float32 numpy array of `shape`.

    Raises:
        BadInput: no rule for such a name.
    """
    for pattern, rule in RULES:
        if re.fullmatch(pattern, path):
            rng = np.random.Generator(
                np.random.SFC64([seed, zlib.crc32(path.encode())])
            )
            return rule(rng, shape)
    raise BadInput(f"No rule in layers/init.py gives the parameter {path} a value.")


def init_params(model, seed, *example_args):
    """First parameters of a module: a nested dict of float32 numpy arrays.

    Call with `model.apply({"params": params}, ...)`. Depends on seed and sizes only.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: first_value(
            jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape, seed
        ),
        param_shapes(model, *example_args),
    )
