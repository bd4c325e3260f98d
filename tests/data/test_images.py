"""Pictures of every mode become the same kind of array, broken ones a sentence."""

import io
import os
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dalle2_jax.data import images
from dalle2_jax.data.images import decode, describe, shown_size
from dalle2_jax.errors import BadInput


def encoded(image, kind="png", **options):
    held = io.BytesIO()
    image.save(held, kind, **options)
    return held.getvalue()


def gradient(height, width):
    ramp = np.linspace(0, 255, width).astype(np.uint8)
    return np.broadcast_to(ramp[None, :, None], (height, width, 3)).copy()


def test_a_picture_of_the_right_size_is_untouched():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(pixels)), 32), pixels)


def test_the_centre_of_the_shorter_side_is_kept():
    made = decode(encoded(Image.fromarray(gradient(40, 120))), 20)
    assert made.shape == (20, 20, 3) and made.dtype == np.uint8
    expected = np.linspace(85, 170, 20)
    np.testing.assert_allclose(made[10, :, 0], expected, atol=4)


def test_shrinking_is_antialiased():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    made = decode(encoded(Image.fromarray(stripes)), 32)
    np.testing.assert_allclose(made, 127.5, atol=12)


def test_a_large_jpeg_is_shrunk_as_finely_as_by_decoding_it_whole():
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (32, 48, 3), dtype=np.uint8))
    picture = coarse.resize((768, 512), Image.Resampling.BICUBIC)
    data = encoded(picture, "jpeg", quality=95)
    whole = np.asarray(Image.open(io.BytesIO(data)))
    quick = decode(data, 64).astype(int)
    slow = decode(encoded(Image.fromarray(whole)), 64).astype(int)
    assert np.abs(quick - slow).mean() < 1 and np.abs(quick - slow).max() < 12


def test_transparency_shows_white():
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    palette = Image.new("P", (16, 16), 0)
    palette.putpalette([9, 9, 9] * 256)
    for data in (
        encoded(clear),
        encoded(clear.convert("LA")),
        encoded(clear, "webp", lossless=True),
        encoded(palette, transparency=0),
        encoded(Image.new("RGB", (16, 16), (7, 7, 7)), transparency=(7, 7, 7)),
    ):
        assert (decode(data, 16) == 255).all()


def test_every_mode_becomes_rgb():
    assert (decode(encoded(Image.new("L", (8, 8), 90)), 8) == 90).all()
    assert (decode(encoded(Image.new("1", (8, 8), 1)), 8) == 255).all()
    deep = Image.fromarray(np.full((8, 8), 128 * 257, np.uint16))
    assert (decode(encoded(deep), 8) == 128).all()
    cmyk = decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "jpeg"), 8)
    assert cmyk.shape == (8, 8, 3) and cmyk[..., 0].min() > 200 > cmyk[..., 1].max()


def test_exif_rotation_is_applied():
    pixels = np.zeros((24, 24, 3), np.uint8)
    pixels[:12] = 255  # bright above
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned to the right
    made = decode(encoded(Image.fromarray(pixels), "jpeg", exif=exif, quality=95), 24)
    assert made[:, 14:].min() > 200 and made[:, :10].max() < 60


def chunk(kind, data):
    """One part of a PNG file."""
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def bomb():
    """A small PNG that promises 60,000 x 60,000 pixels."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body


def test_broken_pictures_are_named():
    whole = encoded(Image.fromarray(gradient(64, 64)), "jpeg")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    png = encoded(Image.fromarray(noise))
    for data, said in (
        (b"", "no picture"),
        (b"<html>not found</html>", "no picture"),
        (whole[: len(whole) // 2], "cut off"),
        (png[: len(png) // 2], "cut off"),
        (bomb(), "too large"),
    ):
        with pytest.raises(BadInput, match=f"0001.jpg is .*{said}"):
            decode(data, 16, "0001.jpg")


def test_greys_of_floats_are_scaled_by_the_range_that_they_fill():
    ramp = np.arange(256, dtype=np.float32).reshape(16, 16)
    for values in (ramp, ramp / 255, ramp * 257):
        made = decode(encoded(Image.fromarray(values), "tiff"), 16)
        assert np.array_equal(made[..., 1], ramp)


@pytest.mark.parametrize("odd", [-1.0, np.nan, np.inf, 1e6])
def test_greys_without_a_known_white_are_refused(odd):
    values = np.full((8, 8), odd, np.float32)
    with pytest.raises(BadInput, match="deep.tif"):
        decode(encoded(Image.fromarray(values), "tiff"), 8, "deep.tif")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n%%EOF\n"


def test_no_picture_starts_another_program(tmp_path, monkeypatch):
    """Pillow gives EPS to Ghostscript, whatever the file is called."""
    from dalle2_jax.evaluate.human_pairs import read_folder
    from dalle2_jax.evaluate.pictures import decoded

    program = tmp_path / "bin/gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "0.png").write_bytes(EPS)
    opened = (
        lambda: decode(EPS, 8, "0.png"),
        lambda: decoded(EPS, "0.png"),
        lambda: describe(EPS, "0.png"),
        lambda: shown_size(EPS, "0.png"),
        lambda: read_folder(tmp_path),
    )
    for call in opened:
        with pytest.raises(BadInput, match="0.png"):
            call()
    assert not (tmp_path / "started").exists()


def test_pictures_are_opened_in_one_place():
    """Of all that Pillow reads, only what images.FORMATS allows."""
    home = images.__file__
    for path in (p for p in Path(home).parents[1].rglob("*.py") if str(p) != home):
        assert "Image.open(" not in path.read_text(encoding="utf-8"), path


def test_a_decoder_that_fails_in_any_way_is_one_sentence(monkeypatch):
    def fail(image, size):
        raise ZeroDivisionError

    monkeypatch.setattr(images, "_square", fail)
    with pytest.raises(BadInput, match="0001.png"):
        decode(encoded(Image.new("L", (8, 8))), 8, "0001.png")


def test_pictures_in_the_making_are_bounded_together(monkeypatch):
    """Eight threads with pictures of a third of the room each: three at a time."""
    room, most, now, lock = images._Room(), [], [], threading.Lock()
    monkeypatch.setattr(images, "_ROOM", room)
    monkeypatch.setattr(room, "left", 3 * 64 * 64)
    together = threading.Barrier(3)
    square = images._square

    def watched(image, size):
        with lock:
            now.append(image.size[0] * image.size[1])
            most.append(sum(now))
        together.wait(60)  # until three are here
        with lock:
            now.pop()
        return square(image, size)

    monkeypatch.setattr(images, "_square", watched)
    data = encoded(Image.new("RGB", (64, 64)))
    threads = [threading.Thread(target=decode, args=(data, 8)) for _ in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(most) == 9 and max(most) == 3 * 64 * 64
    assert room.left == 3 * 64 * 64


def test_large_pictures_wait_for_the_other_processes(monkeypatch):
    room, lock = images._Room(), threading.Lock()
    monkeypatch.setattr(images, "_ROOM", room)
    monkeypatch.setattr(images, "LARGE", 100)
    images.share_room(lock)
    held = []
    monkeypatch.setattr(
        images, "_square", lambda image, size: held.append(lock.locked())
    )
    for side in (8, 16):
        decode(encoded(Image.new("L", (side, side))), 8)
    assert held == [False, True] and not lock.locked()
