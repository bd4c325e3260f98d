"""The widgets that tabs share, and how errors and pictures reach the page."""

import contextlib

from dalle2_jax.demo.studio import SEEDS, Settings
from dalle2_jax.errors import BadInput, Failed

SECONDS = 20  # that a message stays
BOX = 270  # pixels of height of a box for a given picture
DICE = f"() => Math.floor(Math.random() * {SEEDS})"


@contextlib.contextmanager
def spoken(gr):
    """What a user can mend becomes a message on the page: our sentence, no trace."""
    try:
        yield
    except (BadInput, Failed) as error:
        said = str(error)
        said = said[:1].upper() + said[1:]
        raise gr.Error(said, duration=SECONDS, print_exception=False) from error


def shown(made):
    """Made -> what a gallery takes."""
    return [(one.path, one.label) for one in made]


def picture_box(gr, label):
    """A box for a given picture; handlers get the path of the file as it was sent.

    gradio would open it itself, and has other words for what is no picture.
    """
    box = gr.Image(
        label=label,
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard"],
        format="png",
        height=BOX,
        elem_classes="given",
    )
    box.preprocess = lambda sent: sent.path if sent else None
    return box


def seed_row(gr):
    """A seed and a button that draws another."""
    with gr.Row(elem_classes="seed"):
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, scale=4)
        die = gr.Button("New seed", size="sm", scale=1, min_width=100)
    die.click(None, None, seed, js=DICE, api_visibility="private")
    return seed


def controls(gr, steps=None):
    """Seed, steps and guidance of the decoder: three widgets, in Settings' order.

    steps: said to be the default.
    """
    seed = seed_row(gr)
    with gr.Accordion("Steps and guidance", open=False), gr.Row():
        asked = gr.Textbox(label="Steps of the decoder", placeholder=steps)
        guidance = gr.Number(
            None, label="Guidance of the decoder", placeholder="the model's own"
        )
    return [seed, asked, guidance]


def settings_of(seed, steps, guidance):
    """Settings of the three values of `controls`."""
    return Settings(seed, steps or "", guidance)


def draw_button(gr, words):
    """The button of a tab."""
    return gr.Button(words, variant="primary", size="lg")


def gallery(gr, label, columns=4, height=560):
    """Where the pictures come out, PNG as they were written."""
    return gr.Gallery(
        label=label,
        show_label=False,
        format="png",
        columns=columns,
        height=height,
        object_fit="contain",
        elem_classes="pictures",
        buttons=["download", "download_all", "fullscreen"],
        interactive=False,
    )


def frame(gr):
    """One large picture, that of the slider's place."""
    return gr.Image(
        label="Picture",
        type="filepath",
        image_mode=None,
        format="png",
        height=400,
        interactive=False,
        elem_classes="frame",
        buttons=["download", "fullscreen"],
    )


def scrubber(gr, label, start):
    """A slider over drawn pictures, 0 to 1."""
    return gr.Slider(0, 1, start, step=0.01, label=label, interactive=True)


def at(made, share):
    """The picture file at a share, 0 to 1, of the way through Made; None without."""
    return made[round(share * (len(made) - 1))].path if made else None
