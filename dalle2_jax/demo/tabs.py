"""One function per tab: its widgets, and the click that hands them to the studio.

gr is the gradio module everywhere. All clicks that draw wait in one queue, as there is
one model.
"""

from dalle2_jax.demo import studio as drawing
from dalle2_jax.demo.widgets import (
    at,
    controls,
    draw_button,
    frame,
    gallery,
    picture_box,
    scrubber,
    seed_row,
    settings_of,
    shown,
    spoken,
)

OWN = "the model's own"
INVERTED = "100"  # steps of manipulate.latent.EXACT
QUIET = {"api_visibility": "private", "queue": False, "show_progress": "hidden"}


def generate_tab(gr, studio, look):
    """Captions to pictures; returns (State of the chosen one's path, row below)."""
    with gr.Tab("Generate", id="Generate"), gr.Row():
        with gr.Column(scale=2, min_width=340):
            made, chosen = gr.State([]), gr.State(None)
            text = gr.Textbox(
                label="Captions, one a line",
                lines=3,
                max_lines=12,
                placeholder="What is to be seen?",
                elem_id="captions",
            )
            count = gr.Slider(1, 16, 4, step=1, label="Pictures a caption")
            seed = seed_row(gr)
            steps, guidance = _stages(gr, look)
            button = draw_button(gr, "Generate")
        with gr.Column(scale=3, min_width=340):
            pictures = gallery(gr, "Pictures", height=470)
            hand = gr.Row(visible=False, elem_classes="hand")
            if look.examples:
                said = "Captions of its training data"
                gr.Examples([[words] for words in look.examples], text, label=said)

    bar = gr.Progress()

    def click(text, count, seed, steps, guidance, progress=bar):
        given = (text, count, seed, steps, guidance)
        with spoken(gr):
            for done in drawing.draw_captions(studio, *given, progress):
                yield shown(done), done

    def choose(made, place: gr.SelectData):
        return made[place.index].path, gr.Row(visible=True)

    inputs, outputs = [text, count, seed, steps, guidance], [pictures, made]
    _draws(button, click, inputs, outputs, "generate")
    pictures.select(choose, made, [chosen, hand], **QUIET)
    return chosen, hand


def _stages(gr, look):
    """Steps and guidance of every stage, which a preset fills in."""
    with gr.Accordion("Steps and guidance", open=False):
        preset = gr.Dropdown([OWN, *look.presets], value=OWN, label="Preset")
        with gr.Row():
            steps = gr.Textbox(
                label="Steps: prior/decoder/upsamplers", placeholder=look.own[0]
            )
            guidance = gr.Textbox(
                label="Guidance: prior/decoder", placeholder=look.own[1]
            )
    values = {OWN: ("", "")} | look.presets
    preset.input(values.get, preset, [steps, guidance], **QUIET)
    return steps, guidance


def variations_tab(gr, studio):
    """One picture, what CLIP sees in it kept; returns the box."""
    with gr.Tab("Variations", id="Variations"), gr.Row():
        with gr.Column(scale=2, min_width=340):
            picture = picture_box(gr, "Picture")
            said = "how much is let go: 0 gives it back, 1 keeps only what CLIP sees"
            eta = gr.Slider(0, 1, 1, step=0.05, label="Eta", info=said)
            count = gr.Slider(1, 16, 4, step=1, label="Variations")
            settings = controls(gr, INVERTED)
            button = draw_button(gr, "Draw variations")
        with gr.Column(scale=3, min_width=340):
            pictures = gallery(gr, "Variations")

    def click(picture, eta, count, *settings):
        with spoken(gr):
            given = (picture, count, eta, settings_of(*settings))
            return shown(drawing.vary(studio, *given))

    _draws(button, click, [picture, eta, count, *settings], pictures, "variations")
    return picture


def interpolate_tab(gr, studio):
    """From one picture to another, under a slider; returns the first box."""
    with gr.Tab("Interpolate", id="Interpolate"), gr.Row():
        with gr.Column(scale=2, min_width=340):
            with gr.Row():
                one, other = picture_box(gr, "From"), picture_box(gr, "To")
            count = gr.Slider(2, 16, 9, step=1, label="Pictures on the way")
            noise = gr.Radio(
                [("of both pictures, by slerp", "slerp"), ("one for all", "fixed")],
                value="slerp",
                label="Noise x_T",
            )
            settings = controls(gr, INVERTED)
            button = draw_button(gr, "Draw the way")
        outputs, place = _way(gr, "Place on the way", 0.5)

    def click(one, other, count, noise, place, *settings):
        with spoken(gr):
            given = (one, other, count, noise, settings_of(*settings))
            made = drawing.walk_between(studio, *given)
            return at(made, place), shown(made), made

    inputs = [one, other, count, noise, place, *settings]
    _draws(button, click, inputs, outputs, "interpolate")
    return one


def text_diff_tab(gr, studio):
    """A picture turned by two captions, under a slider; returns the box."""
    with gr.Tab("Text diff", id="Text diff"), gr.Row():
        with gr.Column(scale=2, min_width=340):
            picture = picture_box(gr, "Picture")
            said = 'a caption of the picture, "a photo", or nothing'
            old = gr.Textbox(label="What it is", info=said)
            new = gr.Textbox(label="What it is to become", info="a caption, too")
            said = "0.25 to 0.5 in the paper; more changes more"
            theta = gr.Slider(0.05, 1, 0.5, step=0.05, label="Largest theta", info=said)
            count = gr.Slider(2, 16, 7, step=1, label="Pictures on the way")
            settings = controls(gr, INVERTED)
            button = draw_button(gr, "Draw the text diff")
        outputs, place = _way(gr, "Place between what it was and the largest theta", 1)

    def click(picture, old, new, theta, count, place, *settings):
        with spoken(gr):
            given = (picture, old, new, theta, count, settings_of(*settings))
            made = drawing.turn(studio, *given)
            return at(made, place), shown(made), made

    inputs = [picture, old, new, theta, count, place, *settings]
    _draws(button, click, inputs, outputs, "text_diff")
    return picture


def inpaint_tab(gr, studio):
    """A picture with a drawn mask; returns the editor."""
    with gr.Tab("Inpaint", id="Inpaint"), gr.Row():
        with gr.Column(scale=3, min_width=340):
            brush = gr.Brush(48, colors=["#ffffff"], color_mode="fixed")
            editor = gr.ImageEditor(
                label="Paint over what is to be drawn anew",
                type="pil",
                image_mode="RGBA",
                sources=["upload", "clipboard"],
                brush=brush,
                transforms=(),
                layers=False,
                format="png",
                canvas_size=(512, 512),
                fixed_canvas=True,
                height=560,
                buttons=[],
            )
            said = "of the whole picture; nothing keeps what CLIP sees in it now"
            caption = gr.Textbox(label="Caption", info=said)
            said = "RePaint's resampling; a decoder that knows masks needs 1"
            walks = gr.Slider(1, 10, 4, step=1, label="Walks of a level", info=said)
            settings = controls(gr, OWN)
            button = draw_button(gr, "Inpaint")
        with gr.Column(scale=2, min_width=340):
            pictures = gallery(gr, "Inpainted", 1)

    def click(edited, caption, walks, *settings):
        with spoken(gr):
            edited = edited or {}
            strokes = edited.get("layers") or []
            given = (caption, walks, settings_of(*settings))
            background = edited.get("background")
            return shown(drawing.repaint(studio, background, strokes, *given))

    _draws(button, click, [editor, caption, walks, *settings], pictures, "inpaint")
    return editor


def image_to_image_tab(gr, studio):
    """A picture redrawn from a noised version of itself; returns the box."""
    with gr.Tab("Image to image", id="Image to image"), gr.Row():
        with gr.Column(scale=2, min_width=340):
            picture = picture_box(gr, "Picture or sketch")
            said = "what is wanted; nothing: what CLIP sees in it now"
            caption = gr.Textbox(label="Caption", info=said)
            strength = gr.Slider(
                0.05, 1, 0.6, step=0.05, label="Strength", info="1 draws all anew"
            )
            count = gr.Slider(1, 16, 4, step=1, label="Pictures")
            settings = controls(gr, OWN)
            button = draw_button(gr, "Redraw")
        with gr.Column(scale=3, min_width=340):
            pictures = gallery(gr, "Redrawn")

    def click(picture, caption, strength, count, *settings):
        with spoken(gr):
            given = (picture, caption, strength, count, settings_of(*settings))
            return shown(drawing.redraw(studio, *given))

    inputs = [picture, caption, strength, count, *settings]
    _draws(button, click, inputs, pictures, "image_to_image")
    return picture


def upsample_tab(gr, studio):
    """A given picture through the upsamplers; returns the box."""
    with gr.Tab("Upsample", id="Upsample"), gr.Row():
        with gr.Column(scale=2, min_width=340):
            picture = picture_box(gr, "Small picture")
            seed = seed_row(gr)
            button = draw_button(gr, "Enlarge")
        with gr.Column(scale=3, min_width=340):
            pictures = gallery(gr, "Enlarged", 1)

    def click(picture, seed):
        with spoken(gr):
            return shown(drawing.enlarge(studio, picture, seed))

    _draws(button, click, [picture, seed], pictures, "upsample")
    return picture


def hand_on(gr, chosen, row, takers, tabs):
    """Buttons under the first gallery that take the chosen picture to other tabs.

    chosen: State of a path; row: gr.Row of the buttons; takers: {tab: box}.
    """

    def go(name, editor, path):
        value = {"background": path, "layers": [], "composite": None}
        return value if editor else path, gr.Tabs(selected=name)

    with row:
        for name, box in takers.items():
            button = gr.Button(f"→ {name}", size="sm", min_width=90)
            given = (gr.State(name), gr.State(isinstance(box, gr.ImageEditor)), chosen)
            button.click(go, list(given), [box, tabs], **QUIET)


def _way(gr, label, start):
    """A large picture, its slider and all pictures: (outputs of a click, slider)."""
    made = gr.State([])
    with gr.Column(scale=3, min_width=340):
        large = frame(gr)
        place = scrubber(gr, label, start)
        pictures = gallery(gr, "The whole way", 9, None)
    place.change(at, [made, place], large, trigger_mode="always_last", **QUIET)
    return [large, pictures, made], place


def _draws(button, click, inputs, outputs, name):
    """A click that waits for the model."""
    button.click(click, inputs, outputs, concurrency_id="model", api_name=name)
