"""unCLIP §2.1: the upsamplers, U-Nets without attention and without a caption."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from dalle2_jax.errors import BadInput
from dalle2_jax.layers.unet import UNet, UNetConfig


@dataclasses.dataclass(frozen=True)
class UpsamplerConfig:
    """Sizes of an upsampler.

    size: pixels of a full image's side; training may use crops. factor: how much larger
    than the low-resolution image. residual: the network adds to the enlarged image, for
    prediction of x_0.
    """

    size: int
    unet: UNetConfig
    factor: int = 4
    resize: str = "bilinear"
    residual: bool = False

    def __post_init__(self):
        assert self.resize in ("bilinear", "bicubic"), "resize is bilinear or bicubic"
        same = self.unet.in_channels == self.unet.out_channels
        assert same or not self.residual, "residual needs out_channels = in_channels"


def example(cfg, batch=1):
    """Shapes of what an Upsampler is called with: `init_params(..., seed, *...)`."""
    high, low = (
        jax.ShapeDtypeStruct((batch, side, side, cfg.unet.in_channels), jnp.float32)
        for side in (cfg.size, cfg.size // cfg.factor)
    )
    return high, jax.ShapeDtypeStruct((batch,), jnp.int32), low


def enlarge(low_res, shape, method):
    """low_res at the size of x_t, by "bilinear" or "bicubic" (a = -0.5) weights."""
    shape = (*shape[:3], low_res.shape[-1])
    return jax.image.resize(low_res, shape, method, antialias=False)


class Upsampler(nn.Module):
    """x_t and a smaller image -> the prediction; parameters under unet/."""

    cfg: UpsamplerConfig

    @nn.compact
    def __call__(self, x_t, t, low_res, train=False):
        """x_t float [b, y, x, c], t [b], low_res [b, y / factor, x / factor, c].

        Returns float32 [b, y, x, out]. Any size that the U-Net can halve will do.

        Raises:
            BadInput: the two images do not differ by the factor.
        """
        cfg = self.cfg
        expected = tuple(side * cfg.factor for side in low_res.shape[1:3])
        if x_t.shape[1:3] != expected:
            raise BadInput(
                f"The upsampler got x_t of {x_t.shape[1:3]} for a low-resolution "
                f"image of {low_res.shape[1:3]}; factor {cfg.factor} needs {expected}."
            )
        enlarged = enlarge(low_res, x_t.shape, cfg.resize)
        x = jnp.concatenate([x_t, enlarged], axis=-1)  # [b, y, x, 2 c]
        unet = dataclasses.replace(cfg.unet, in_channels=x.shape[-1])
        out = UNet(unet, name="unet")(x, t, train=train)
        return out + enlarged if cfg.residual else out
