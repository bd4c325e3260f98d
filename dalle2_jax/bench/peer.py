"""The same stages in diffusers' UnCLIP components, with our weights, in PyTorch.

The loops are those of its pipeline: one call of the network and one of the scheduler a
step, guidance by a batch of twice the size.
"""

import os
from types import SimpleNamespace
from typing import Any, NamedTuple

from dalle2_jax.components import read_json, save_component
from dalle2_jax.config import plain
from dalle2_jax.convert.exporter import export_weights
from dalle2_jax.errors import BadInput

NETWORKS = ("prior", "decoder", "super_res_first", "super_res_last")
UNUSED = ("tokenizer", "image_encoder", "feature_extractor")


def pipeline(model, folder, dtype="float32", compile_it=False):
    """What diffusers' pipeline is made of, with a model's own weights.

    PyTorch is given as many threads as XLA takes by itself: `threads()`.

    Args:
        model: UnCLIP of Karlo's kind.
        folder: where the export is written; must not hold one.
        dtype: of weights and computation.
        compile_it: networks through torch.compile.

    Raises:
        BadInput: PyTorch or diffusers are not installed, or diffusers has no class for
            the model.
    """
    try:
        import torch
    except ImportError as error:
        raise BadInput(
            "the comparison needs PyTorch and diffusers; install "
            "'dalle2_jax[test]', or leave --peer out."
        ) from error
    torch.set_num_threads(threads())
    for stage in ("clip", "prior", "decoder", "upsampler", "upsampler_last"):
        part = getattr(model, stage)
        if part is not None:
            noise = part.noise and plain(part.noise)
            config = {"stage": stage, "model": plain(part.cfg), "noise": noise}
            config |= {"sampling": part.config["sampling"]}
            save_component(folder / "ours", stage, config, part.params)
    export_weights(folder / "ours", folder / "theirs", "diffusers")
    pipe = parts_of(folder / "theirs")
    for name in (*NETWORKS, "text_proj", "text_encoder"):
        getattr(pipe, name).to(getattr(torch, dtype))
    for name in NETWORKS if compile_it else ():
        getattr(pipe, name).compile()
    return pipe


def threads():
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0))


def parts_of(folder):
    """The networks and schedulers of an exported pipeline, by name."""
    import diffusers
    import transformers
    from diffusers.pipelines.deprecated.unclip import text_proj

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    homes = {"diffusers": diffusers, "transformers": transformers, "unclip": text_proj}
    index = read_json(folder / "model_index.json", "export it again")
    found = {}
    for name, value in index.items():
        if isinstance(value, list) and name not in UNUSED:
            kind = getattr(homes[value[0]], value[1])
            found[name] = kind.from_pretrained(folder / name)
    return SimpleNamespace(**found)


class Loops(NamedTuple):
    """The loops of the pipeline over made-up inputs, each a function without arguments.

    pipe: `pipeline`; pooled [2 b, clip], states [2 b, n, clip], mask [2 b, n]: captions
    and, in front of them, what guidance contrasts with; how: {stage: Sampling}.
    """

    pipe: Any
    pooled: Any
    states: Any
    mask: Any
    how: dict

    def clip(self):
        """The text tower, of a batch and the empty caption."""
        import torch

        rows = len(self.mask) // 2 + 1
        tokens = torch.ones(self.mask[:rows].shape, dtype=torch.long)
        return self.pipe.text_encoder(tokens, attention_mask=self.mask[:rows])

    def prior(self):
        """z_i [b, clip]."""
        import torch

        network, given = self.pipe.prior, (self.pooled, self.states, self.mask)

        def predict(x, t, last):
            out = network(torch.cat([x, x]), t, *given).predicted_image_embedding
            return mixed(*out.chunk(2), self.how["prior"].guidance)

        x = torch.randn_like(self.pooled[::2])
        x = walk(self.pipe.prior_scheduler, self.how["prior"], x, predict)
        return network.post_process_latents(x)

    def decoder(self):
        """Pictures [b, 3, size, size]."""
        import torch

        network, project = self.pipe.decoder, self.pipe.text_proj
        context, time = project(
            image_embeddings=self.pooled[::2],
            prompt_embeds=self.pooled,
            text_encoder_hidden_states=self.states,
            do_classifier_free_guidance=True,
        )
        extra = (project.clip_extra_context_tokens, 0)
        seen = torch.nn.functional.pad(self.mask, extra, value=True)
        given = {"class_labels": time, "attention_mask": seen}

        def predict(x, t, last):
            null, cond = network(torch.cat([x, x]), t, context, **given).sample.chunk(2)
            eps = mixed(null[:, :3], cond[:, :3], self.how["decoder"].guidance)
            return torch.cat([eps, cond[:, 3:]], dim=1)

        x = self.noise(network.config.sample_size)
        x = walk(self.pipe.decoder_scheduler, self.how["decoder"], x, predict)
        return x.clamp(-1, 1)

    def upsampler(self):
        """Larger pictures."""
        import torch

        size = self.pipe.super_res_first.config.sample_size
        low = torch.nn.functional.interpolate(
            self.noise(self.pipe.decoder.config.sample_size).float(),
            size=[size, size],
            mode="bicubic",
            antialias=True,  # PyTorch has it for CPUs in float32 alone
        ).to(self.pooled.dtype)

        def predict(x, t, last):
            networks = self.pipe.super_res_first, self.pipe.super_res_last
            return networks[last](torch.cat([x, low], dim=1), t).sample

        scheduler, how = self.pipe.super_res_scheduler, self.how["upsampler"]
        return walk(scheduler, how, self.noise(size), predict)

    def noise(self, size):
        """Normal numbers [b, 3, size, size]."""
        import torch

        shape = (len(self.mask) // 2, 3, size, size)
        return torch.randn(shape, dtype=self.pooled.dtype)


def stages(pipe, batch, how):
    """{stage: function that draws a batch once}; how: {stage: Sampling}."""
    import torch

    sizes, kind = pipe.prior.config, next(pipe.prior.parameters()).dtype
    shape = (2 * batch, sizes.num_embeddings)
    pooled = torch.randn(shape[0], sizes.embedding_dim, dtype=kind)
    states = torch.randn(*shape, sizes.embedding_dim, dtype=kind)
    loops = Loops(pipe, pooled, states, torch.ones(shape, dtype=torch.bool), how)
    names = ("clip", "prior", "decoder", "upsampler")
    return {name: torch.inference_mode()(getattr(loops, name)) for name in names}


def walk(scheduler, how, x, predict):
    """A pipeline's loop: predict(x, t, whether it is the last step) -> output."""
    scheduler.set_timesteps(int(how.steps))
    times = scheduler.timesteps
    for number, t in enumerate(times):
        last = number + 1 == len(times)
        following = None if last else times[number + 1]
        output = predict(x, t, last)
        x = scheduler.step(output, t, x, prev_timestep=following).prev_sample
    return x


def mixed(null, cond, scale):
    """Classifier-free guidance."""
    return null + scale * (cond - null)
