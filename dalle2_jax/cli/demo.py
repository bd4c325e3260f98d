"""`dalle2 demo`: a page to play with, on this machine alone."""

from pathlib import Path

NAME = "demo"
HELP = (
    "Open a page in the browser: captions to pictures, variations, interpolations,\n"
    "text diffs, inpainting with a drawn mask. It needs `pip install\n"
    "'dalle2_jax[demo]'`, asks nothing outside this machine, and only this machine\n"
    "reaches it; from elsewhere: ssh -L 7860:127.0.0.1:7860 HOST."
)
EXAMPLE = "dalle2 demo --model runs/model --port 7860"


def add_arguments(parser):
    """The flags of `dalle2 demo`."""
    parser.add_argument("--model", required=True, type=Path, help="model directory")
    parser.add_argument("--port", type=int, default=7860, help="of 127.0.0.1")
    parser.add_argument(
        "--out", type=Path, help="folder that keeps the PNGs (default: none is kept)"
    )


def run(args):
    """Loads the model and serves the page until it is interrupted."""
    import contextlib
    import os
    import signal
    import tempfile

    from dalle2_jax.cli.machine import start_jax
    from dalle2_jax.errors import BadInput

    if not 0 < args.port < 65536:
        raise BadInput(f"--port {args.port} must lie between 1 and 65535.")
    start_jax()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # tidies up, too
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="dalle2-"))
        os.environ["GRADIO_TEMP_DIR"] = scratch  # of what is sent to the page
        from dalle2_jax.demo.page import serve

        page, side = page_of(args.model, args.out or Path(scratch, "made"))
        print(f"{args.model} is at http://127.0.0.1:{args.port}, ctrl-C ends it")
        serve(page, args.port, side)


def page_of(folder, out):
    """The page of a model directory, and the side of its pictures.

    out: folder of the PNGs.
    """
    from dalle2_jax.cli.ways import presets_of, ways
    from dalle2_jax.data.examples import read_examples
    from dalle2_jax.demo.page import Look, build, start_gradio
    from dalle2_jax.demo.studio import Studio
    from dalle2_jax.manipulate.reading import picture_side
    from dalle2_jax.unclip import load, need

    start_gradio()
    model = load(folder)
    need(model, "clip", "decoder")
    out.mkdir(parents=True, exist_ok=True)
    name, side = Path(folder).resolve().name, picture_side(model)
    own = ways(model, None, None).values()
    steps = "/".join(how.steps for how in own)
    guidance = "/".join(f"{how.guidance:g}" for how in own)
    told, shown = about(model, folder), read_examples(folder)
    look = Look(told, shown, presets_of(model), (steps, guidance))
    return build(Studio(model, name, out, ways), look), side


def about(model, folder):
    """A line on a model: its directory, stages and device."""
    import jax

    from dalle2_jax.unclip import prior_of

    stages = [f"decoder {model.decoder.cfg.size} px"]
    if getattr(model, prior_of(model)) is not None:
        stages.insert(0, prior_of(model).replace("_", " "))
    side = model.decoder.cfg.size
    for part in (model.upsampler, model.upsampler_2):
        if part is not None:
            side *= part.cfg.factor
            stages.append(f"upsampler {side} px")
    return f"`{folder}`: {' → '.join(stages)}, on {jax.devices()[0].platform}"
