"""The page: its head, one tab per thing to do, and the server that shows it.

gradio, the extra `[demo]`, is imported where it is used. Nothing is computed here.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from dalle2_jax.demo import tabs
from dalle2_jax.demo.studio import Studio
from dalle2_jax.errors import BadInput
from dalle2_jax.unclip import need

WAITING = 32  # clicks in the queue; later ones are told to come again
UPLOAD = "20mb"
HOST = "127.0.0.1"  # of this machine alone
NAMES = (HOST, "localhost", "::1")  # that a browser here may call it
REFUSED = "This page is for 127.0.0.1 and localhost alone; from elsewhere use ssh -L."
FONTS = ("system-ui", "-apple-system", "Segoe UI", "DejaVu Sans", "sans-serif")
MONO = ("ui-monospace", "DejaVu Sans Mono", "monospace")
SMALL = 256  # sides up to it are shown with their pixels square
CSS = """
.gradio-container {max-width: 1180px !important; width: 100% !important;
  margin: 0 auto !important}
.gradio-container main {width: 100%}
#head h1 {margin-bottom: .1em} #head p {color: var(--body-text-color-subdued)}
#head code {font-size: .95em}
.given img, .frame img {width: 100%; height: 100%; object-fit: contain}
.hand button {white-space: nowrap; flex: 1 1 auto !important; min-width: 0 !important}
.seed {align-items: end} .seed button {margin: 0 0 .8em}
.pictures .caption-label {display: none}
"""
PLAIN = {  # cards on grey, labels without boxes
    "body_background_fill": "*neutral_100",
    "block_title_background_fill": "transparent",
    "block_title_background_fill_dark": "transparent",
    "block_title_padding": "0",
    "block_label_background_fill": "*background_fill_primary",
    "block_label_background_fill_dark": "*background_fill_primary",
    "block_label_text_color": "*body_text_color",
    "block_title_text_color": "*body_text_color",
    "block_title_text_weight": "600",
}
SQUARE = ".pictures img, .frame img, .given img {image-rendering: pixelated}"


class Look(NamedTuple):
    """What the page says before a click.

    about: a line on the model; examples: captions; presets:
    {name: (steps, guidance)}; own: the model's own (steps, guidance), as text.
    """

    about: str
    examples: list
    presets: dict
    own: tuple


def start_gradio():
    """gradio, told to ask nothing outside this machine.

    Raises:
        BadInput: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import gradio
    except ImportError as error:
        raise BadInput(
            f"the page needs gradio, which cannot be imported ({error}); run "
            "`pip install 'dalle2_jax[demo]'`."
        ) from error
    return gradio


def build(studio: Studio, look: Look) -> Any:
    """The page as gradio Blocks. Raises BadInput: the model cannot draw at all."""
    gr = start_gradio()
    need(studio.model, "clip", "decoder")
    with gr.Blocks(title=f"dalle2: {studio.name}", delete_cache=(3600, 86400)) as page:
        gr.Markdown(f"# unCLIP\n{look.about}", elem_id="head")
        with gr.Tabs() as choice:
            chosen, row = tabs.generate_tab(gr, studio, look)
            takers = {
                "Variations": tabs.variations_tab(gr, studio),
                "Interpolate": tabs.interpolate_tab(gr, studio),
                "Text diff": tabs.text_diff_tab(gr, studio),
                "Inpaint": tabs.inpaint_tab(gr, studio),
                "Image to image": tabs.image_to_image_tab(gr, studio),
            }
            if studio.model.upsampler is not None:
                tabs.upsample_tab(gr, studio)
        tabs.hand_on(gr, chosen, row, takers, choice)
    return page


class LoopbackOnly:
    """ASGI middleware: answers requests for this machine by its own names alone.

    A page of elsewhere whose name was made to mean 127.0.0.1 (DNS rebinding) has that
    name in Host, and one that sends files here has its own in Origin; both get 403.
    """

    def __init__(self, app: Callable) -> None:
        self.app = app

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """One request. Raises nothing of its own."""
        headers = dict(scope.get("headers", ()))
        if scope["type"] == "lifespan" or _is_local(headers):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            plain = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": plain})
            await send({"type": "http.response.body", "body": REFUSED.encode()})


def _is_local(headers: dict) -> bool:
    """Whether Host is a name of loopback, and Origin, if any, is of the same page."""
    host = headers.get(b"host", b"").decode("latin-1")
    origin = headers.get(b"origin", host.encode()).decode("latin-1")
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name in NAMES and origin.removeprefix("http://") == host


def serve(page, port, side, wait=True):
    """Shows Blocks on loopback; returns gradio's (app, url, share url).

    Args:
        page: Blocks of `build`.
        port: of HOST.
        side: pixels of the model's pictures.
        wait: until the process is interrupted.

    Raises:
        BadInput: the port is taken.
    """
    gr = start_gradio()
    from starlette.middleware import Middleware

    theme = gr.themes.Soft(font=FONTS, font_mono=MONO).set(**PLAIN)
    css = CSS + (SQUARE if side <= SMALL else "")
    page.queue(max_size=WAITING, default_concurrency_limit=1)
    try:
        return page.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            max_file_size=UPLOAD,
            show_error=False,
            run_history=False,
            footer_links=[],
            app_kwargs={"middleware": [Middleware(LoopbackOnly)]},
            enable_monitoring=False,
            ssr_mode=False,
            theme=theme,
            css=css,
            quiet=True,
            prevent_thread_lock=not wait,
        )
    except OSError as error:
        raise BadInput(f"port {port} cannot be used ({error}); give --port.") from error
