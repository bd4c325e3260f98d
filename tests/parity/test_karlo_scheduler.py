"""The 25 ancestral steps of Karlo's prior, against diffusers' loop in float64.

The recorded predictions are given to our step, so that this holds for the scheduler
alone; the prior itself has a parity test of its own.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from dalle2_jax.diffusion import samplers
from dalle2_jax.diffusion.schedule import Rows, rows

FILE = load_file(Path(__file__).parent / "data" / "prior_karlo_loop.safetensors")
CLIP = 5.0  # clip_sample_range of the recorded scheduler


def test_the_walk_of_karlos_prior():
    table, latents = rows("cosine", 1000, 25), FILE["output/latents_f64"]
    noise = np.append(FILE["input/noise"], np.zeros((1, 2, 32)), axis=0)
    np.testing.assert_array_equal(table.t, FILE["output/timesteps"])
    with jax.enable_x64(True):
        x = latents[0].astype(np.float64)
        for i, x_0 in enumerate(FILE["output/guided_x0"]):
            prediction = samplers.Prediction(jnp.clip(x_0, -CLIP, CLIP), None)
            row = Rows(*(column[i] for column in table))
            x = samplers.ddpm(lambda x, row, p=prediction: p, x, row, noise[i])
            np.testing.assert_allclose(x, latents[i + 1], atol=5e-5)
