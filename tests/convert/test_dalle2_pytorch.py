"""DALLE2-pytorch's priors: containers, generations, both ways, and what is refused."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.components import load_component, save_component
from dalle2_jax.config import build
from dalle2_jax.convert.dalle2_generations import ONE_NULL, THREE_NULLS
from dalle2_jax.convert.dalle2_pytorch import (
    STAGE,
    export_prior,
    import_prior,
    prior_from,
    recognise,
    unpack,
)
from dalle2_jax.convert.parity import read_case
from dalle2_jax.diffusion.schedule import Noise
from dalle2_jax.errors import BadInput
from dalle2_jax.prior.dalle2_pytorch import Dalle2PytorchConfig, sample_z_image
from dalle2_jax.prior.diffusion import Text
from dalle2_jax.unclip import sampling_of

DATA = Path(__file__).parent.parent / "parity" / "data"
NULLS = (THREE_NULLS, "net.null_text_embeds", "net.null_image_embed")


def recorded(name="dalle2_pytorch_prior"):
    """A recorded state dict and its configuration as a training run has it."""
    case = read_case(DATA / f"{name}.safetensors")
    prior = {**case.config["prior"], "net": case.config["network"]}
    return dict(case.params), {"prior": prior, "data": {}, "train": {}}


def older():
    """The same weights with the keys of the time before the three nulls."""
    state, config = recorded()
    null = state[THREE_NULLS]
    state = {key: value for key, value in state.items() if key not in NULLS}
    return {**state, ONE_NULL: null}, config


def back(made):
    cfg = build(Dalle2PytorchConfig, made.config["model"])
    noise = build(Noise, made.config["noise"])
    return export_prior(cfg, noise, made.params)


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@pytest.mark.parametrize("name", ["dalle2_pytorch_prior", "dalle2_pytorch_prior_noenc"])
def test_import_then_export_gives_the_file_back(name):
    state, config = recorded(name)
    exported, fields = back(import_prior(state, config))
    same(exported, state)
    for field, value in config["prior"]["net"].items():
        assert fields["prior"]["net"].get(field, value) == value
    again = import_prior(exported, json.loads(json.dumps(fields)))
    assert again.config == import_prior(state, config).config


@pytest.mark.parametrize(
    "version, attention", [("1.1.0", "dot"), ("0.23.3", "dot"), ("1.4.3", "cosine")]
)
def test_the_version_tells_the_attention_of_older_files(version, attention):
    state, config = older()
    made = import_prior(state, {**config, "version": version})
    assert made.config["model"]["attention"] == attention
    assert not made.config["model"]["nulls"]
    exported, fields = back(made)
    same(exported, state)
    assert import_prior(exported, fields).config == made.config


def test_sizes_come_from_the_keys_alone():
    state, config = recorded("dalle2_pytorch_prior_noenc")
    bare = {k: v for k, v in config["prior"].items() if k != "net"}
    cfg, _ = prior_from(state, bare)
    assert (cfg.clip, cfg.depth, cfg.heads, cfg.head_width) == (32, 1, 2, 24)
    assert (cfg.text_tokens, cfg.time_tokens, cfg.image_tokens) == (2, 2, 2)
    assert (cfg.context, cfg.times, cfg.normformer) == (4, 0, True)
    assert cfg.states is False and cfg.rotary


def test_the_averaged_weights_of_a_container_are_taken():
    state, config = recorded()
    worse = {key: value + 1 for key, value in state.items()}
    with_clip = {**state, "clip.clip.logit_scale": np.ones(1)}
    spread = {f"ema_model.{key}": value for key, value in state.items()}
    online = {f"online_model.{key}": value for key, value in worse.items()}
    containers = [
        {"model": worse, "ema_model": with_clip, "step": 7, "version": "1.15.6"},
        {"model": worse, "ema": {**spread, **online, "step": np.ones(1)}},
        {"version": "1.12.4", "config": config, "model": state},
        {**spread, **online},
        state,
    ]
    for saved in containers:
        found = unpack(saved, config)
        same(found.state, state)
        assert found.config["net"] == config["prior"]["net"]
    assert unpack(containers[2]).version == "1.12.4"
    assert "1.10.4 to 1.15.6" in str(recognise(state))


def test_weights_in_half_precision_are_read():
    state, config = recorded()
    half = {key: value.astype(np.float16) for key, value in state.items()}
    made, full = import_prior(half, config), import_prior(state, config)
    assert made.config == full.config
    for ours, theirs in zip(jax.tree.leaves(made.params), jax.tree.leaves(full.params)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def keys(change):
    state, config = recorded()
    change(state)
    return state, config


def fields(change, net=None, source=recorded):
    state, config = source()
    config["prior"] |= change
    config["prior"]["net"] = config["prior"]["net"] | (net or {})
    return state, config


BLOCK = "net.causal_transformer.layers.1.0"
BAD = {
    "this is no DALLE2-pytorch prior": lambda: ({"a.weight": np.ones(1)}, {}),
    r'put "version" into its configuration': older,
    "0.23.1 to 0.23.2 .* cannot be read": lambda: fields(
        {"version": "0.23.2"}, source=older
    ),
    "never used null_text_embeds": lambda: fields({"version": "1.10.0"}),
    "the version 2.0.0 is not known": lambda: fields({"version": "2.0.0"}),
    "the version 1.15.6 is not known": lambda: fields(
        {"version": "1.15.6"}, source=older
    ),
    "no learned padding": lambda: keys(lambda s: [s.pop(key) for key in NULLS]),
    "called gamma": lambda: keys(
        lambda s: (
            [s.pop(key) for key in NULLS]
            + [s.update({f"{BLOCK}.norm.gamma": np.ones(32)})]
        )
    ),
    f"{BLOCK}.to_q.weight is missing": lambda: keys(
        lambda s: s.pop(f"{BLOCK}.to_q.weight")
    ),
    "net.extra .* has no place": lambda: keys(lambda s: s.update({"net.extra": 1})),
    "to_out.0.weight has shape": lambda: keys(
        lambda s: s.update({f"{BLOCK}.to_out.0.weight": np.ones((32, 47))})
    ),
    "incomplete: 'net.learned_query'": lambda: keys(
        lambda s: s.pop("net.learned_query")
    ),
    "noise_scheduler.betas is missing": lambda: keys(
        lambda s: s.pop("noise_scheduler.betas")
    ),
    "freqs is not what": lambda: keys(
        lambda s: s.update({f"{BLOCK}.rotary_emb.freqs": np.ones(8)})
    ),
    "check timesteps and beta_schedule": lambda: fields({"beta_schedule": "linear"}),
    "beta_schedule sigmoid is not supported": lambda: fields(
        {"beta_schedule": "sigmoid"}
    ),
    "says heads = 4, the weights 3": lambda: fields({}, {"heads": 4}),
    "self_cond is supported as false": lambda: fields({}, {"self_cond": True}),
    "prior.net.flash is no field": lambda: fields({}, {"flash": True}),
    "prior.cond_scale is no field": lambda: fields({"cond_scale": 2}),
    "sampling_clamp_l2norm is supported for": lambda: fields(
        {"sampling_clamp_l2norm": True, "predict_v": True}
    ),
}


@pytest.mark.parametrize("sentence", BAD)
def test_what_is_not_understood_is_refused_by_name(sentence):
    state, config = BAD[sentence]()
    with pytest.raises(BadInput, match=sentence):
        import_prior(state, config, "latest.pth")


@pytest.mark.parametrize(
    "version, given, steps, predicts",
    [
        ("1.15.6", {}, "20", "x0"),
        ("1.15.6", {"sample_timesteps": 6}, "lucid6", "x0"),
        ("1.1.0", {"sample_timesteps": 6}, "laion6", "x0"),
        ("1.15.6", {"sample_timesteps": 20}, "20", "x0"),
        ("1.15.6", {"predict_x_start": False}, "20", "eps"),
        ("1.15.6", {"predict_v": True}, "20", "v"),
    ],
)
def test_a_component_is_saved_loaded_and_sampled(
    tmp_path, version, given, steps, predicts
):
    source = older if version == "1.1.0" else recorded
    state, config = fields({**given, "version": version}, source=source)
    made = import_prior(state, config)
    save_component(tmp_path, STAGE, made.config, made.params)
    part = load_component(tmp_path, STAGE)
    how = sampling_of(part)
    assert (how.steps, part.noise.predicts) == (steps, predicts)
    same(export_prior(part.cfg, part.noise, part.params)[0], state)
    rng = np.random.default_rng(0)
    text = Text(
        rng.standard_normal((2, 32), np.float32),
        rng.standard_normal((2, 6, 32), np.float32),
        np.ones((2, 6), bool),
    )
    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    sizes = {"cfg": part.cfg, "noise": part.noise, "how": how}
    z = sample_z_image(part.params, text, keys, **sizes)
    np.testing.assert_allclose(jnp.linalg.norm(z, axis=-1), 1, rtol=1e-5)
