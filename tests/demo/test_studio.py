"""What the page draws, without a page: limits, files, and the functions behind it."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dalle2_jax.cli.sample import ways
from dalle2_jax.demo import studio as drawing
from dalle2_jax.demo.studio import Settings, Studio
from dalle2_jax.errors import BadInput
from dalle2_jax.manipulate.reading import read_picture
from dalle2_jax.manipulate.variations import variations
from dalle2_jax.unclip import from_uint8, generate, load, to_uint8

FAST = Settings(3, "3", 1.5)


@pytest.fixture(scope="module")
def studio(folder, tmp_path_factory):
    return Studio(load(folder), "small", tmp_path_factory.mktemp("made"), ways)


def pixels(made):
    return np.stack([np.asarray(Image.open(one.path)) for one in made])


def test_captions_become_the_pictures_of_generate_with_provenance(studio):
    heard = []
    text = "a red ring\n\n a blue square "
    parts = list(
        drawing.draw_captions(
            studio, text, 2, 7, "2/3/2", "", lambda *x: heard.append(x)
        )
    )
    made = parts[-1]
    wanted = ["a red ring"] * 2 + ["a blue square"] * 2
    assert [one.label for one in made] == wanted
    how = ways(studio.model, "2/3/2", None)
    expected = np.concatenate(list(generate(studio.model, wanted, 7, how=how)))
    np.testing.assert_allclose(pixels(made).astype(int), expected, atol=1)
    facts = json.loads(Image.open(made[3].path).info["dalle2"])
    assert facts["label"] == "a blue square" and facts["steps"] == "2/3/2"
    assert (facts["seed"], facts["sample"], facts["model"]) == (7, 3, "small")
    shares = [share for share, _ in heard]
    assert shares == sorted(shares) and shares[-1] == 1
    assert made[0].path.endswith("a-red-ring-seed7-00.png")


def test_variations_are_those_of_the_command(studio, files):
    made = drawing.vary(studio, str(files / "one.png"), 2, 1.0, FAST)
    image = from_uint8(read_picture(files / "one.png", 16)[None])
    how = drawing._inverting(studio, FAST)
    expected = to_uint8(variations(studio.model, jnp.asarray(image), 2, 1.0, how, 3))
    np.testing.assert_allclose(pixels(made).astype(int), expected, atol=1)


def test_a_way_has_its_ends_and_a_text_diff_its_thetas(studio, files):
    one, other = (str(files / name) for name in ("one.png", "other.png"))
    way = drawing.walk_between(studio, one, other, 3, "slerp", FAST)
    assert [made.label for made in way] == [
        "0% of the way",
        "50% of the way",
        "100% of the way",
    ]
    turned = drawing.turn(studio, one, "a red ring", "a blue square", 0.5, 3, FAST)
    assert turned[-1].label == "theta 0.50"
    np.testing.assert_allclose(pixels(turned)[0], pixels(way)[0], atol=2)


def test_only_what_strokes_cover_is_drawn_anew(studio, files):
    picture = Image.open(files / "one.png").convert("RGBA")
    strokes = np.zeros((20, 24, 4), np.uint8)
    strokes[:, :12] = 255
    given = ([Image.fromarray(strokes)], "a red ring", 1, FAST)
    made = pixels(drawing.repaint(studio, picture, *given))[0]
    before = read_picture(files / "one.png", 16)
    np.testing.assert_array_equal(made[:, 8:], before[:, 8:])
    assert (made[:, :7] != before[:, :7]).mean() > 0.5


def test_the_margins_of_a_canvas_are_no_part_of_the_picture(studio, files):
    picture = Image.open(files / "one.png").convert("RGBA")
    canvas, strokes = (Image.new("RGBA", (40, 40)) for _ in range(2))
    canvas.paste(picture, (8, 10))
    strokes.paste("white", (0, 0, 20, 40))
    made = drawing.repaint(studio, canvas, [strokes], "", 1, FAST)
    before = read_picture(files / "one.png", 16)
    np.testing.assert_array_equal(pixels(made)[0][:, 9:], before[:, 9:])


def test_redrawing_and_enlarging_give_files_of_the_last_size(studio, files):
    one = str(files / "one.png")
    for made in (
        drawing.redraw(studio, one, "", 0.5, 2, FAST),
        drawing.enlarge(studio, one, 1),
    ):
        assert pixels(made).shape[1:] == (16, 16, 3)


ONE = "a red ring"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda s, f: list(drawing.draw_captions(s, " \n", 1, 0)), "no caption"),
        (lambda s, f: list(drawing.draw_captions(s, ONE, 99, 0)), "1 to 32 a click"),
        (
            lambda s, f: list(drawing.draw_captions(s, f"{ONE}\n" * 20, 2, 0)),
            "40 pictures are asked for",
        ),
        (lambda s, f: list(drawing.draw_captions(s, ONE, 1, 0.5)), "the seed is 0.5"),
        (lambda s, f: list(drawing.draw_captions(s, ONE, 1, None)), "the seed is None"),
        (lambda s, f: list(drawing.draw_captions(s, ONE, 1, 0, "x")), "'x'"),
        (lambda s, f: list(drawing.draw_captions(s, ONE, 1, 0, "5000")), "5000"),
        (lambda s, f: drawing.vary(s, None, 1, 1, FAST), "there is no picture"),
        (lambda s, f: drawing.vary(s, f["words"], 1, 1, FAST), "^words.png is no pict"),
        (lambda s, f: drawing.vary(s, f["bomb"], 1, 1, FAST), "^bomb.png is too large"),
        (lambda s, f: drawing.vary(s, f["one"], 1, 2, FAST), "eta is 2"),
        (lambda s, f: drawing.vary(s, f["one"], 1, 1, Settings(0, "0")), "0"),
        (lambda s, f: drawing.turn(s, f["one"], "", " ", 1, 3, FAST), "no caption to"),
        (lambda s, f: drawing.redraw(s, f["one"], "", 0, 1, FAST), "strength is 0"),
        (lambda s, f: drawing.repaint(s, None, [], "", 1, FAST), "there is no picture"),
        (
            lambda s, f: drawing.repaint(
                s, Image.new("RGBA", (9, 9), "red"), [], "", 1, FAST
            ),
            "the mask has no white part",
        ),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(call, said, studio, files):
    named = {path.stem: str(path) for path in files.iterdir()}
    with pytest.raises(BadInput, match=said) as error:
        call(studio, named)
    assert "\n" not in str(error.value)
