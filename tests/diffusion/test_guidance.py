"""Guidance: what is called how often, what is mixed, and where samples end up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.diffusion import guidance, samplers
from dalle2_jax.diffusion.schedule import Noise, full_table, rows
from dalle2_jax.diffusion.walk import Sampling
from dalle2_jax.diffusion.walk import walk as whole_walk
from dalle2_jax.errors import BadInput

X = jax.random.normal(jax.random.key(0), (3, 4, 4, 2))
TIME = jnp.array([5, 50, 500])
COND = {"shift": jnp.array([1.0, 2.0, -3.0]), "keep": jnp.ones(3), "none": None}
NULL = COND | {"keep": jnp.zeros(3)}
AB = jnp.asarray(full_table("cosine", 1000).ab)


class Model:
    """A network that counts its calls and remembers the sizes of their batches."""

    def __init__(self, learned=False):
        self.batches, self.learned = [], learned

    def __call__(self, x, t, cond):
        self.batches.append(len(x))

        def wide(a):
            return a.reshape(-1, 1, 1, 1)

        out = jnp.tanh(x + wide(cond["shift"] * cond["keep"])) + wide(t) / 1000
        return jnp.concatenate([out, 2 * out], -1) if self.learned else out


def test_scale_one_makes_one_plain_call():
    for scale in (1, 1.0):
        model = Model()
        out = guidance.guided(model, COND, None, scale)(X, TIME)
        assert model.batches == [3]
        np.testing.assert_array_equal(out, Model()(X, TIME, COND))


@pytest.mark.parametrize("scale", [0.0, 1.25, 4, jnp.float32(3.0)])
def test_other_scales_make_one_call_of_twice_the_size(scale):
    model, plain = Model(), Model()
    out = guidance.guided(model, COND, NULL, scale)(X, TIME)
    null, cond = plain(X, TIME, NULL), plain(X, TIME, COND)
    assert model.batches == [6]
    np.testing.assert_array_equal(out, null + jnp.float32(scale) * (cond - null))


def test_every_sample_may_have_its_own_scale():
    plain, scales = Model(), jnp.array([0.0, 1.0, 2.5])
    run = jax.jit(lambda s: guidance.guided(Model(), COND, NULL, s)(X, TIME))
    null, cond = plain(X, TIME, NULL), plain(X, TIME, COND)
    expected = null + scales.reshape(3, 1, 1, 1) * (cond - null)
    np.testing.assert_allclose(run(scales), expected, atol=1e-6)
    np.testing.assert_allclose(run(scales)[1], cond[1], atol=1e-6)


def test_the_variance_is_that_of_the_condition():
    model = Model(learned=True)
    out = guidance.guided(model, COND, NULL, 3.0, learned_variance=True)(X, TIME)
    null, cond = model(X, TIME, NULL), model(X, TIME, COND)
    np.testing.assert_array_equal(out[..., 2:], cond[..., 2:])
    np.testing.assert_array_equal(out[..., :2], (null + 3.0 * (cond - null))[..., :2])


@pytest.mark.parametrize("null", [None, {"shift": COND["shift"]}])
def test_a_null_that_does_not_match_is_refused(null):
    with pytest.raises(BadInput, match="null"):
        guidance.guided(Model(), COND, null, 2.0)


def test_guided_mixing_is_float32_also_for_bfloat16_networks():
    def model(x, t, cond):
        return Model()(x, t, cond).astype(jnp.bfloat16)

    out = guidance.guided(model, COND, NULL, 7.5)(X, TIME)
    assert out.dtype == jnp.float32


def shifted(x, t, cond):
    """eps of N(a, 1), where a is the condition: [b, d], [b], [b, 1]."""
    ab = AB[t][:, None]
    return jnp.sqrt(1 - ab) * (x - jnp.sqrt(ab) * cond)


def walk(step, denoise):
    keys = jax.random.split(jax.random.key(7), 4096)
    x_T = samplers.initial_noise(keys, (8,))
    return samplers.sample(step, denoise, x_T, rows("cosine", 1000, 250), keys)


def test_guidance_goes_beyond_the_condition():
    """Null N(0, 1) and condition N(a, 1) mix into N(s a, 1)."""
    cond = jnp.full((4096, 1), 0.5)
    model = guidance.guided(shifted, cond, jnp.zeros_like(cond), 3.0)
    x = walk(samplers.ddim(), samplers.denoiser(model, Noise(), None))
    np.testing.assert_allclose(x.mean(), 1.5, atol=0.03)
    np.testing.assert_allclose(x.var(), 1.0, atol=0.03)


def test_a_classifier_tilts_the_distribution():
    """N(0, 1) under p(y | x_0) ~ exp(a x_0) is N(a, 1): by eps and by the mean."""
    nothing = jnp.zeros((4096, 1))

    def model(x, t):
        return shifted(x, t, nothing)

    denoise = samplers.denoiser(model, Noise(), None)

    def gradient(x, t):
        return 0.8 * jnp.sqrt(AB[t][:, None]) * jnp.ones_like(x)

    by_eps = walk(samplers.ddim(), guidance.classifier_guided(denoise, gradient))
    by_mean = walk(guidance.classifier_ddpm(gradient), denoise)
    np.testing.assert_allclose(by_eps.mean(), 0.8, atol=0.03)
    np.testing.assert_allclose(by_mean.mean(), 0.8, atol=0.03)


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm", "analytic"])
def test_a_walk_of_any_sampler_is_tilted_by_a_gradient(sampler):
    keys = jax.random.split(jax.random.key(7), 4096)
    x_T = samplers.initial_noise(keys, (8,))
    squares = (0.0, *[1.0] * 10)  # almost: N(0, 1) data leave eps known in part
    noise = Noise(eps_square=squares)
    steps = "logsnr60" if sampler == "dpm" else "250"
    how = Sampling(steps=steps, sampler=sampler, eta=0.0)

    def model(x, t):
        return shifted(x, t, jnp.zeros((len(x), 1)))

    def gradient(x, t):
        return 0.8 * jnp.sqrt(AB[t][:, None]) * jnp.ones_like(x)

    x = whole_walk(model, noise, how, x_T, keys, gradient=gradient)
    np.testing.assert_allclose(x.mean(), 0.8, atol=0.03)
    np.testing.assert_allclose(x.var(), 1.0, atol=0.06)


def test_the_push_of_a_gradient_leaves_x_0_within_its_bound():
    """Where sqrt(ab) is 5e-5 the least push would; few steps then never come back."""
    keys = jax.random.split(jax.random.key(7), 64)
    x_T, seen = samplers.initial_noise(keys, (8,)), []

    def gradient(x, t):
        jax.debug.callback(lambda size: seen.append(float(size)), jnp.abs(x).max())
        return 0.1 * jnp.ones_like(x)

    def model(x, t):
        return shifted(x, t, jnp.zeros((len(x), 1)))

    how = Sampling(steps="10", sampler="ddim", eta=0.0, clip=1.0)
    x = whole_walk(model, Noise(), how, x_T, keys, gradient=gradient)
    jax.effects_barrier()
    assert max(seen) < 6 and float(jnp.abs(x).max()) <= 1 and float(x.std()) > 0.3


def test_guidance_acts_within_its_interval_alone():
    out = guidance.guided(Model(), COND, NULL, 3.0, interval=(5, 50))(X, TIME)
    always = guidance.guided(Model(), COND, NULL, 3.0)(X, TIME)
    np.testing.assert_array_equal(out[:2], always[:2])
    np.testing.assert_allclose(out[2], Model()(X, TIME, COND)[2], atol=1e-6)


def test_rescaled_guidance_has_the_spread_of_the_condition():
    plain = Model()(X, TIME, COND)
    whole, half, none = (
        guidance.guided(Model(), COND, NULL, 5.0, rescale=share)(X, TIME)
        for share in (1.0, 0.5, 0.0)
    )
    axes = (1, 2, 3)
    np.testing.assert_allclose(whole.std(axes), plain.std(axes), rtol=1e-5)
    np.testing.assert_allclose(half, (whole + none) / 2, rtol=1e-5)


def calls(how):
    """Batches of the network calls in the compiled program of a step."""
    batches = []

    def model(x, t, cond):
        batches.append(len(x))
        return Model()(x, t, cond)

    def run(x, keys):
        guide = guidance.guided(model, COND, NULL, how.guidance)
        return whole_walk(guide, Noise(), how, x, keys)

    program = jax.make_jaxpr(run)(X, jax.random.split(jax.random.key(0), len(X)))
    counted = str(program).count("tanh")  # one in the network
    assert counted == len(batches)
    return batches


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm"])
def test_scale_one_costs_one_network_call_a_step(sampler):
    one, two = (Sampling("9", scale, sampler=sampler) for scale in (1.0, 2.0))
    assert calls(one) == [3] and calls(two) == [6]
