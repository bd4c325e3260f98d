"""How each stage is sampled, as flags: one value per stage, with slashes between."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dalle2_jax.unclip import UnCLIP

PRESETS = {  # steps and guidance of prior/decoder/upsampler/upsampler_2
    "paper": ("64/250/27/15", "1/1.25"),  # unCLIP Table 3, App. C
    "karlo": ("25/50/7", "4/8"),
    "karlo-fast": ("25/25/7", "4/8"),
}
OF_KARLO = ("karlo", "karlo-fast")  # for models in Karlo's form
PARTS = ("prior", "decoder", "upsampler", "upsampler_2")


def interval(text):
    """ "0.2:0.8" -> (0.2, 0.8)."""
    low, colon, high = text.partition(":")
    if not colon:
        raise ValueError("write it as LOW:HIGH, e.g. 0.2:0.8")
    return float(low), float(high)


FIELDS = {  # flag: field of Sampling, how its values are read, help
    "steps": ("steps", str, "prior/decoder/upsampler, e.g. 64/250/27; dpm: logsnr20"),
    "guidance": ("guidance", float, "classifier-free, e.g. 1/1.5; 1 = none"),
    "sampler": ("sampler", str, "ancestral, ddim, dpm or analytic, e.g. dpm/ddim"),
    "eta": ("eta", float, "of ddim, 0 to 1"),
    "bound": ("clip", float, "of predicted x_0 (static thresholding), 0 = none"),
    "threshold": ("threshold", float, "quantile of dynamic thresholding, e.g. /0.995"),
    "interval": ("interval", interval, "where guidance acts, e.g. /0.2:0.8; 1 = noise"),
    "rescale": ("rescale", float, "share of the spread that guidance gives back"),
    "candidates": ("candidates", int, "draws of the diffusion prior; best is kept"),
    "temperature": ("temperature", float, "of the autoregressive prior, 0 = likeliest"),
    "percentile": ("percentile", float, "of z_i . z_t, autoregressive prior"),
}
JUDGES = {  # flag: help
    "clip_guidance": "strength of a noise-aware CLIP's gradient to the caption (GLIDE)",
    "classifier_guidance": "strength of a classifier's gradient (ADM), with --label",
}


def add_ways(parser):
    """The flags of FIELDS and JUDGES, and --preset."""
    group = parser.add_argument_group(
        "how stages are sampled",
        "one value per stage, prior/decoder/upsampler/upsampler_2; what is left out, "
        "also between two slashes, stays as the model has it",
    )
    known = ", ".join(PRESETS)
    group.add_argument(
        "--preset",
        help=f"steps and guidance by name: {known}; the latter two for models in "
        "Karlo's form, whose z_i has a length of its own",
    )
    for flag, (_, _, about) in FIELDS.items():
        group.add_argument(f"--{flag}", help=about)
    for flag, about in JUDGES.items():
        group.add_argument(f"--{flag.replace('_', '-')}", type=float, help=about)


def ways_of(args, model):
    """{stage: Sampling} of the flags that `add_ways` made.

    Raises:
        BadInput: as `ways`, or there is no such preset.
    """
    steps, guidance = preset(args.preset, model)
    rest = {flag: getattr(args, flag) for flag in FIELDS}
    rest |= {
        "steps": args.steps or steps,
        "guidance": args.guidance or guidance,
    }
    how = changed_ways(model, rest)
    for flag in JUDGES if "decoder" in how else ():
        how["decoder"] = judged(how["decoder"], flag, getattr(args, flag))
    return how


def judged(how, flag, strength):
    """The decoder's Sampling with the strength of a judge; None leaves it."""
    import dataclasses

    from dalle2_jax.errors import BadInput

    try:
        return how if strength is None else dataclasses.replace(how, **{flag: strength})
    except BadInput as error:
        raise BadInput(f"--{flag.replace('_', '-')}: {error}") from error


def presets_of(model: "UnCLIP") -> dict[str, tuple[str, str]]:
    """{name: (steps, guidance)} of the presets that suit a model.

    Karlo's guidance, 4 and 8, and its few steps ruin the pictures of models that were
    not trained in its form: unit vectors between the stages tell them.
    """
    unit = model.clip is None or model.clip.cfg.unit
    return {n: way for n, way in PRESETS.items() if not (unit and n in OF_KARLO)}


def preset(name: str | None, model: "UnCLIP") -> tuple[str | None, str | None]:
    """(steps, guidance) of a preset; of None, (None, None).

    Raises:
        BadInput: there is none of that name, or it does not suit the model.
    """
    from dalle2_jax.errors import BadInput

    if name is None:
        return None, None
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise BadInput(f"--preset {name} is none of {known}; take one of them.")
    suitable = presets_of(model)
    if name not in suitable:
        raise BadInput(
            f"--preset {name} is for models in Karlo's form and would ruin this one's "
            f"pictures; take {', '.join(suitable)}, or give --steps and --guidance."
        )
    return suitable[name]


def ways(model, steps, guidance, sampler=None):
    """{stage: Sampling} from "64/250/27" and "1/1.5"; what is not given stays.

    Raises:
        BadInput: more values than stages, or one that cannot be.
    """
    given = {"steps": steps, "guidance": guidance, "sampler": sampler}
    return changed_ways(model, given)


def changed_ways(model, given):
    """{stage: Sampling} of a model with fields changed; given: {flag: text or None}.

    Raises:
        BadInput: more values than stages, one that cannot be, or more steps than the
            stage's noise has.
    """
    from dalle2_jax.errors import BadInput
    from dalle2_jax.unclip import prior_of, sampling_of

    stages = (prior_of(model), *PARTS[1:])
    parts = {s: getattr(model, s) for s in stages if getattr(model, s) is not None}
    how = {stage: sampling_of(part) for stage, part in parts.items()}
    for flag, text in given.items():
        values = text.split("/") if text else ()
        if len(values) > len(stages):
            raise BadInput(
                f"--{flag} {text} has {len(values)} values; the stages are "
                f"{', '.join(stages)}."
            )
        for stage, value in zip(stages, values):
            if stage in how and value:
                how[stage] = _changed(how[stage], flag, value, parts[stage].noise)
    return how


def _changed(how, flag, value, noise):
    """A Sampling with one field changed; steps are tried on the table of the noise."""
    import dataclasses

    from dalle2_jax.diffusion.schedule import rows
    from dalle2_jax.errors import BadInput

    field, kind, _ = FIELDS[flag]
    try:
        changed = dataclasses.replace(how, **{field: kind(value)})
        if flag == "steps" and noise is not None:
            rows(noise.schedule, noise.steps, value)
    except (ValueError, AssertionError) as error:
        said = str(error).rstrip(".")
        raise BadInput(f"--{flag} {value!r}: {said}.") from error
    return changed
