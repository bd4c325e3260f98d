"""Pictures and masks as people have them: taken as they are shown, or one sentence."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dalle2_jax.cli.main import main
from dalle2_jax.data.write_shapes import make_shapes
from dalle2_jax.errors import BadInput
from dalle2_jax.manipulate.inpaint import mask_of
from dalle2_jax.manipulate.reading import read_mask, read_picture

VERBS = {  # what follows the picture, or pictures
    "variations": [],
    "interpolate": ["good.png"],
    "mix": [],
    "text-diff": ["--new", "a red ring"],
    "inpaint": ["--mask", "half.png"],
    "image-to-image": [],
    "upsample": [],
    "pca": ["--data", "data", "--components", "2"],
    "typographic": ["--words", "hi", "--labels", "a red ring"],
}
STEPLESS = ("upsample", "typographic")
ORIENTATION = 0x0112
REFUSED = {
    "bomb.png": "bomb.png is too large to be decoded safely",
    "claims.png": "claims.png is too large to be decoded safely",
    "words.png": "words.png is no picture in a known format",
    "empty.png": "empty.png is no picture in a known format",
    "drawing.svg": "drawing.svg is no picture in a known format",
    "script.eps": "script.eps is no picture in a known format",
    "cut.jpg": "cut.jpg is damaged or cut off",
    "cut.png": "cut.png is damaged or cut off",
    "folder.png": "folder.png cannot be read (Is a directory)",
    "none.png": "none.png cannot be read (No such file or directory)",
}


def chunk(kind, data):
    """One chunk of a PNG file."""
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


def claiming(width, height):
    """A PNG of a few bytes that claims a size."""
    size = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    parts = (
        chunk(b"IHDR", size),
        chunk(b"IDAT", zlib.compress(b"")),
        chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of picture files, good and bad; the working directory of the verbs."""
    where = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    good = Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8))
    good.save(where / "good.png")
    good.resize((200, 200)).save(where / "good.jpg")
    half = np.zeros((20, 20), np.uint8)
    half[:10] = 255
    Image.fromarray(half).save(where / "half.png")
    Image.new("1", (20_000, 20_000)).save(where / "bomb.png")
    (where / "claims.png").write_bytes(claiming(100_000, 100_000))
    (where / "words.png").write_text("no picture")
    (where / "empty.png").touch()
    (where / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (where / "script.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9")
    for name in ("good.jpg", "good.png"):
        data = (where / name).read_bytes()
        (where / name.replace("good", "cut")).write_bytes(data[: len(data) // 2])
    (where / "folder.png").mkdir()
    make_shapes("simple", 16, seed=0, out_dir=where / "data", shard_size=16)
    return where


def call(verb, picture, folder, out):
    """The exit code of a verb on a picture, with the fewest steps."""
    steps = [] if verb in STEPLESS else ["--steps", "2"]
    words = [verb, picture, *VERBS[verb], *steps]
    return main([*words, "--model", str(folder), "--out", str(out)])


@pytest.mark.parametrize("picture", REFUSED)
def test_what_is_no_picture_is_said_in_one_sentence(picture, place, monkeypatch):
    monkeypatch.chdir(place)
    with pytest.raises(BadInput) as error:
        read_picture(picture, 16)
    said = str(error.value)
    assert said.startswith(REFUSED[picture]) and "\n" not in said


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_says_it(verb, folder, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(place)
    for picture in ("claims.png", "words.png"):
        assert call(verb, picture, folder, tmp_path / "out") == 2
        heard = capsys.readouterr().err.strip()
        said = f"dalle2 {verb}: {REFUSED[picture]}"
        assert heard.startswith(said) and "\n" not in heard
    assert not (tmp_path / "out").exists()


def saved(where, image, name, **how):
    image.save(where / name, **how)
    return where / name


def test_alpha_shows_white(tmp_path):
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 4, 8))
    for name in ("a.png", "a.webp"):
        made = read_picture(saved(tmp_path, clear, name, lossless=True), 8)
        assert (made[:, :4] == (0, 0, 255)).all() and (made[:, 4:] == 255).all()
    grey = saved(tmp_path, Image.new("LA", (8, 8), (9, 0)), "la.png")
    assert (read_picture(grey, 8) == 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16", "CMYK", "RGB"])
def test_every_mode_comes_as_three_colours(mode, tmp_path):
    name = "a.tiff" if mode in ("CMYK", "I;16") else "a.png"
    made = read_picture(saved(tmp_path, Image.new(mode, (9, 5)), name), 4)
    assert made.shape == (4, 4, 3) and made.dtype == np.uint8
    assert np.ptp(made) == 0


def test_one_pixel_fills_the_picture(tmp_path):
    one = saved(tmp_path, Image.new("RGB", (1, 1), (3, 141, 59)), "one.png")
    assert (read_picture(one, 16) == (3, 141, 59)).all()


def test_a_moving_picture_is_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    for name in ("a.gif", "a.webp", "a.png"):
        how = {"save_all": True, "append_images": frames[1:], "lossless": True}
        made = read_picture(saved(tmp_path, frames[0], name, **how), 8)
        assert (made == (255, 0, 0)).all(), name


def turned(image):
    """EXIF that says: shown after a quarter turn to the right."""
    exif = image.getexif()
    exif[ORIENTATION] = 6
    return exif


def test_exif_turns_the_picture_and_its_mask_is_as_large_as_it_is_shown(tmp_path):
    lying = Image.new("RGB", (30, 20), "red")
    lying.paste((0, 0, 255), (0, 0, 30, 10))  # the upper half, shown at the right
    picture = saved(tmp_path, lying, "a.png", exif=turned(lying))
    made = read_picture(picture, 8)
    assert (made[:, :3] == (255, 0, 0)).all() and (made[:, 5:] == (0, 0, 255)).all()
    standing = saved(tmp_path, Image.new("L", (20, 30), 255), "standing.png")
    assert read_mask(standing, picture, 8).shape == (8, 8, 3)
    raw = saved(tmp_path, Image.new("L", (30, 20), 255), "raw.png")
    with pytest.raises(BadInput, match="30 x 20, .*a.png 20 x 30; make them equally"):
        read_mask(raw, picture, 8)


MASKS = {  # exit code, what is said
    "nothing": (Image.new("L", (20, 20)), 2, "the mask has no white part"),
    "other": (Image.new("L", (21, 20), 255), 2, "21 x 20, good.png 20 x 20; make them"),
    "everything": (Image.new("L", (20, 20), 255), 0, ""),
    "clear": (Image.new("RGBA", (20, 20)), 0, ""),  # transparent counts as white
}


@pytest.mark.parametrize("name", MASKS)
def test_masks(name, folder, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(place)
    mask, code, said = MASKS[name]
    words = ["--mask", str(saved(tmp_path, mask, f"{name}.png")), "--steps", "2"]
    words = ["inpaint", "good.png", *words, "--model", str(folder)]
    assert main([*words, "--out", str(tmp_path / "out")]) == code
    heard = capsys.readouterr().err.strip()
    assert said in heard and "\n" not in heard
    assert (tmp_path / "out").exists() == (code == 0)


def test_white_and_clear_parts_of_a_mask_are_new():
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:2] = 255
    known = np.asarray(mask_of(pixels))[0, :, :, 0]
    assert not known[:2].any() and known[2:].all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["variations", "good.png", "--eta", "nan"], "--eta nan"),
        (["variations", "good.png", "--guidance", "nan"], "guidance is nan"),
        (["image-to-image", "good.png", "--guidance", "inf"], "guidance is inf"),
        (["image-to-image", "good.png", "--strength", "nan"], "strength is nan"),
        (["text-diff", "good.png", "--new", "a", "--theta", "nan"], "theta"),
        (["text-diff", "good.png", "--new", "a", "--theta", "1.5"], "theta"),
        (["mix"], "there is nothing to mix"),
        (["mix", "good.png", "--weights", "nan"], "cancel out"),
        (["inpaint", "good.png", "--around", "9"], "the margin is 9"),
        (["inpaint", "good.png", "--around", "nan"], "the margin is nan"),
        (["upsample", "good.png", "--size", "2"], "--size is 2"),
        (["pca", "good.png", "--data", "data", "--components", "0"], "components"),
        (["pca", "good.png", "--data", "data", "--components", "99"], "components"),
        (["pca", "good.png", "--data", "nowhere"], "nowhere"),
        (["variations", "good.png", "--steps", "x"], "'x'"),
        (["variations", "good.png", "--steps", "0"], "0"),
    ],
)
def test_numbers_that_cannot_be_are_one_sentence(
    words, said, folder, place, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(place)
    words = [*words, "--model", str(folder), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    heard = capsys.readouterr().err.strip()
    assert said in heard and "\n" not in heard


@pytest.mark.parametrize("seed", [str(2**70), "-1", "1.5"])
def test_what_is_no_seed_is_refused_as_usage(seed, folder, place, capsys):
    words = ["variations", str(place / "good.png"), f"--seed={seed}"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--model", str(folder), "--out", str(place / "out")])
    assert ended.value.code == 2 and "--seed" in capsys.readouterr().err
