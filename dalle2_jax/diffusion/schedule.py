"""Noise schedules as tables: made once, in float64, with NumPy alone.

DDPM is Ho et al. (2020), IDDPM is Nichol and Dhariwal (2021). A sampler never sees the
name of a schedule: it walks over `Rows`, one row per step, the noisiest first. Keeping
fewer steps means another table (IDDPM §4), not another sampler.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from dalle2_jax.errors import BadInput

MOST_STEPS = 10**6  # of a chain; its tables have a row for each


@dataclasses.dataclass(frozen=True)
class Noise:
    """The forward process that a network is trained on, and what the network predicts.

    time_power: training draws t = floor(steps * u ** time_power) with uniform u; less
    than 1 trains more on the noisy end, more than 1 on the clean end. eps_square: what
    `analytic_rows` needs to know of the trained network, () = not measured.
    """

    schedule: str = "cosine"  # or "linear"
    steps: int = 1000
    predicts: str = "eps"  # or "x0", "v"
    learned_variance: bool = False  # the last axis of the output is twice as long
    time_power: float = 1.0
    eps_square: tuple[float, ...] = ()

    def __post_init__(self):
        if self.schedule not in BETAS:
            raise BadInput(f"schedule must be one of {_names(BETAS)}: {self.schedule}.")
        if self.predicts not in PREDICTS:
            raise BadInput(
                f"predicts must be one of {_names(PREDICTS)}: {self.predicts}."
            )
        if not 1 <= self.steps <= MOST_STEPS:
            raise BadInput(f"steps must be 1 to {MOST_STEPS:,}, not {self.steps}.")
        if not self.time_power > 0:
            raise BadInput(f"time_power must be positive, not {self.time_power}.")


class Level(NamedTuple):
    """How much noise: alpha-bar and, apart from it, 1 - alpha-bar.

    float32 has no room for 1 - ab where ab is almost 1 (wrong by 7e-4 at the first step
    of the cosine schedule), so the difference is taken in float64 and kept.
    """

    ab: np.ndarray
    rest: np.ndarray


class Rows(NamedTuple):
    """The steps of a sampler, noisiest first; float64 arrays [n] except t.

    In a compiled function they are float32; one row holds the constants of one step.
    """

    t: np.ndarray  # int32; the step of the full chain, which the network is told
    ab: np.ndarray  # alpha-bar now
    ab_next: np.ndarray  # alpha-bar after the step; 1 in the last row
    rest: np.ndarray  # 1 - ab
    rest_next: np.ndarray  # 1 - ab_next
    beta: np.ndarray  # of the kept steps: 1 - ab / ab_next
    variance: np.ndarray  # of q(x_next | x_t, x_0), DDPM eq. 7
    log_variance: (
        np.ndarray
    )  # its logarithm; the last row, log 0, repeats the one above
    log_beta: np.ndarray

    @property
    def now(self):
        """The noise level that a step starts from."""
        return Level(self.ab, self.rest)

    @property
    def next(self):
        """The noise level that a step leads to."""
        return Level(self.ab_next, self.rest_next)


def linear_betas(steps):
    """DDPM §4: 1e-4 to 0.02 over 1000 steps; scaled for other numbers of them."""
    return np.linspace(0.1 / steps, min(20 / steps, 0.999), steps, dtype=np.float64)


def cosine_betas(steps):
    """IDDPM eq. 17; the betas, at most 0.999, of a squared cosine."""
    s = np.arange(steps + 1, dtype=np.float64) / steps
    f = np.cos((s + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - f[1:] / f[:-1], 0.999)


BETAS = {"cosine": cosine_betas, "linear": linear_betas}
GRIDS = {"lucid": (-1, 1), "laion": (0, 2)}  # first step, points beyond the count
PREDICTS = ("eps", "x0", "v")


def betas(kind, steps):
    """The variances of the forward steps, float64 [steps]. kind: "cosine", "linear"."""
    if kind not in BETAS:
        raise BadInput(f"schedule must be one of {_names(BETAS)}, not {kind!r}.")
    return BETAS[kind](steps)


def alpha_bars(beta):
    """DDPM eq. 4: what remains of the signal's variance after each step, [steps]."""
    return np.cumprod(1 - np.asarray(beta, np.float64))


def kept_steps(steps, spec):
    """Which steps of a long chain a sampler keeps; sorted int array.

    spec: a number n, or "n": n steps spread evenly, both ends included. (10, 10, 5) or
    "10,10,5": that many in equal sections of the chain, the clean end first. "ddim25":
    25 with one whole stride, from 0. "fast27": GLIDE's 27 for its upsampler.

    Raises:
        BadInput: spec is none of these, or asks for more steps than there are.
    """
    if spec == "fast27":
        return np.append(kept_steps(steps, (10, 10, 3, 2, 2))[:-1], steps - 3)
    if isinstance(spec, str) and spec.startswith("ddim"):
        return _one_stride(steps, _counts(spec.removeprefix("ddim"))[0])
    counts = _counts(spec)
    size, more = divmod(steps, len(counts))
    sizes = [size + (i < more) for i in range(len(counts))]
    starts = np.cumsum([0, *sizes[:-1]])
    parts = [_spread(*section) for section in zip(starts, sizes, counts)]
    return np.concatenate(parts)


def rows(kind, steps, spec):
    """The table of a sampler that keeps `spec` of a schedule.

    spec: as in `kept_steps`, or as in `lagging_rows`: "lucid64", "laion64", or
    "logsnr20": 20 steps spread evenly in the logarithm of signal over noise, as
    DPM-Solver likes them.
    """
    if isinstance(spec, str) and spec.startswith(tuple(GRIDS)):
        return lagging_rows(kind, steps, spec)
    ab = alpha_bars(betas(kind, steps))
    if isinstance(spec, str) and spec.startswith("logsnr"):
        t = _even_in_log_snr(ab, _counts(spec.removeprefix("logsnr"))[0])
    else:
        t = kept_steps(steps, spec)
    return _table(t, ab[t])


def lagging_rows(kind, steps, spec):
    """DALLE2-pytorch's table for `ddim(1.0)`, whose levels lag one step behind.

    A step t finds eps at its own alpha-bar, but goes to the alpha-bar before t_next and
    has the variance of a chain of such levels. spec: "lucid64", the grid of 64 since
    its version 1.10.3 (one step less), or "laion64", the grid before.
    """
    (first, more), count = GRIDS[spec[:5]], _counts(spec[5:])[0]
    if not 2 <= count <= steps:
        raise BadInput(f"{spec} is no grid for {steps} steps; give 2 to {steps}.")
    times = _truncated(first, steps, count + more)
    ab = alpha_bars(betas(kind, steps))
    before = np.append(1.0, ab)[np.maximum(times, 0)]  # of step t: that of t - 1
    t, now, following = times[1:], before[1:], before[:-1]
    rest = np.where(now < 1, 1 - now, 1.0)
    share = np.where(following < 1, (1 - now / following) / rest, 0.0)
    table = _between(t, ab[t], following)
    return table._replace(variance=(share * (1 - following))[::-1])


def inverse_rows(table):
    """The same levels walked from clean to noisy, for DDIM inversion: [n - 1] rows.

    Starts at the cleanest level of the table, which an image is taken to have, and ends
    at the noisiest, where a sampler with this table starts.
    """
    back = Rows(*(column[::-1][:-1] for column in table))
    level = Level(table.ab[::-1][1:], table.rest[::-1][1:])
    return back._replace(ab_next=level.ab, rest_next=level.rest)


def analytic_rows(table, eps_square, steps):
    """The table with the optimal reverse variances of a trained network.

    Analytic-DPM (Bao et al. 2022), eq. 8 with the lambda of DDPM: the posterior's
    variance and what x_0 still varies by where the network knows eps only in part.

    Args:
        table: Rows.
        eps_square: mean square of the predicted eps over data, at t spread evenly over
            the chain, both ends included; what lies between is interpolated.
        steps: of the chain.

    Raises:
        BadInput: eps_square is empty.
    """
    if not len(eps_square):
        raise BadInput(
            "the sampler 'analytic' needs the mean square of the network's eps, which "
            "this component has not; train it here, or take another sampler."
        )
    places = np.linspace(0, steps - 1, len(eps_square))
    unknown = 1 - np.clip(np.interp(table.t, places, eps_square), 0, 1)
    spread = table.beta**2 / (table.rest * (1 - table.beta)) * unknown
    log_variance = np.log(np.exp(table.log_variance) + spread)
    return table._replace(log_variance=log_variance)


def resampled_rows(table, times):
    """RePaint's walk (Lugmayr et al. 2022, algorithm 1): every level `times` times.

    After a step down comes one back up, a row whose next level is the noisier one, and
    the step down again; the last step, to the clean picture, is taken once.
    """
    up = table._replace(
        ab=table.ab_next, rest=table.rest_next, ab_next=table.ab, rest_next=table.rest
    )
    columns = zip(table, up)
    walks = (np.stack([*[down, back] * (times - 1), down], 1) for down, back in columns)
    return Rows(*(np.append(walk[:-1].ravel(), walk[-1, 0]) for walk in walks))


@functools.lru_cache(maxsize=16)
def full_table(kind, steps):
    """Every step of a schedule in the order of t, so that row t belongs to step t."""
    return Rows(*(column[::-1] for column in rows(kind, steps, steps)))


def _table(t, ab):
    """Rows of the kept steps t, with their alpha-bars; both from clean to noisy."""
    return _between(t, ab, np.append(1.0, ab[:-1]))


def _between(t, ab, ab_next):
    """Rows of steps t from alpha-bars to alpha-bars, all from clean to noisy."""
    beta = 1 - ab / ab_next
    variance = beta * (1 - ab_next) / (1 - ab)
    logs = np.append(variance[1:2] if len(t) > 1 else beta, variance[1:])
    logs = np.log(np.maximum(logs, np.finfo(np.float32).tiny))
    columns = (ab, ab_next, 1 - ab, 1 - ab_next, beta, variance, logs, np.log(beta))
    return Rows(t[::-1].astype(np.int32), *(column[::-1] for column in columns))


def _counts(spec):
    """The numbers in a description of kept steps, as a tuple."""
    try:
        parts = spec.split(",") if isinstance(spec, str) else np.ravel(spec)
        counts = tuple(int(str(part)) for part in parts)
    except ValueError:
        counts = ()
    if not sum(counts) or min(counts) < 0:
        raise BadInput(
            f"sampling steps cannot be {spec!r}; give a number, numbers "
            "with commas between them, ddim<number>, or fast27."
        )
    return counts


def _spread(start, size, count):
    """`count` steps from start to start + size - 1, both included where count > 1."""
    if count > size:
        raise BadInput(f"{count} sampling steps do not fit in a section of {size}.")
    stride = (size - 1) / (count - 1) if count > 1 else 1.0
    # Added up one by one: the published tables depend on how halves are rounded.
    places = np.add.accumulate([0.0, *[stride] * (count - 1)])[:count]
    return start + np.rint(places).astype(int)


def _truncated(first, last, points):
    """Whole steps from `first` towards `last`, which is left out; int array, ascending.

    In float32 from both ends, since truncation notices the last bit.
    """
    i = np.arange(points, dtype=np.float32)
    stride = np.float32(last - first) / np.float32(points - 1)
    up, down = first + stride * i, last - stride * (points - 1 - i)
    return np.where(i < points // 2, up, down)[:-1].astype(int)


def _even_in_log_snr(ab, count):
    """`count` steps, about evenly spread in log(ab / (1 - ab)); ascending.

    Where the chain itself is coarser, at its noisy end, its own steps are taken.
    """
    if not 2 <= count <= len(ab):
        raise BadInput(f"logsnr{count} is no grid for {len(ab)} steps; take 2 or more.")
    log_snr, i = np.log(ab / (1 - ab)), np.arange(count)
    places = np.linspace(log_snr[0], log_snr[-1], count)
    nearest = np.abs(log_snr[:, None] - places).argmin(0)
    apart = np.minimum.accumulate((nearest - i)[::-1])[::-1]  # no step twice
    return np.maximum(apart, 0) + i


def _one_stride(steps, count):
    """DDIM §D.3: every n-th step from 0, where n makes exactly `count` steps."""
    for stride in range(1, steps + 1):
        if len(range(0, steps, stride)) == count:
            return np.arange(0, steps, stride)
    raise BadInput(f"no whole stride keeps {count} of {steps} steps; give {count}.")


def _names(table):
    return ", ".join(table)
