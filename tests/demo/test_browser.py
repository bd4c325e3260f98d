"""The page in a headless browser: what a person does, sees, and is told."""

import io
import json
import os
import shutil
import urllib.parse

import pytest
from PIL import Image
from served import served

HOW = "the page's tests in a browser: make test-browser"
pytest.importorskip("gradio", reason=HOW)
playwright = pytest.importorskip("playwright.sync_api", reason=HOW)
expect = playwright.expect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
QUIET += ["--disable-background-networking", "--disable-component-update"]
PATIENCE = 60_000  # milliseconds; the first picture waits for its compilation


def browser_path():
    """A Chromium of this machine, or None."""
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="module")
def browser():
    path = browser_path()
    if not path:
        pytest.skip("no Chromium here: apt-get install chromium, or set CHROMIUM")
    sandbox = hasattr(os, "geteuid") and os.geteuid() != 0
    with playwright.sync_playwright() as player:
        one = player.chromium.launch(
            executable_path=path, args=QUIET, chromium_sandbox=sandbox
        )
        yield one
        one.close()


@pytest.fixture(scope="module")
def address(folder, tmp_path_factory):
    with served(folder, tmp_path_factory.mktemp("browser") / "made") as where:
        yield where


@pytest.fixture
def visit(browser, address):
    """A function that opens the page anew; nothing may leave this machine."""
    asked, opened = [], []

    def open_one():
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.get_by_label("Captions, one a line").wait_for()
        opened.append(page)
        return page

    yield open_one
    for page in opened:
        page.close()
    hosts = {urllib.parse.urlsplit(url).hostname for url in asked}
    assert len(asked) > 20 and hosts <= {"127.0.0.1", None}  # None: data: and blob:


def panel(page, tab):
    """The widgets of a tab, brought to the front."""
    page.get_by_role("tab", name=tab, exact=True).click()
    return page.locator("[role=tabpanel]:visible")


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def drawn(place, count, kind=".pictures"):
    """The sources of `count` shown pictures; all have pixels."""
    images = place.locator(f"{kind} img")
    expect(images).to_have_count(count, timeout=PATIENCE)
    page = place.page
    page.wait_for_function(
        "([selector, n]) => { const all = [...document.querySelectorAll(selector)]"
        ".filter(i => i.offsetParent); return all.length == n"
        " && all.every(i => i.complete && i.naturalWidth > 0) }",
        arg=[f"{kind} img", count],
    )
    return images.evaluate_all("images => images.map(i => i.src)")


def give(place, file, number=0):
    """Drops a picture into the number-th box that is still empty."""
    place.locator("input[type=file]").nth(number).set_input_files(file)


def ask(page, caption, seed=0, count=1):
    """Types a caption and presses the button of the first tab."""
    place = panel(page, "Generate")
    page.get_by_label("Captions, one a line").fill(caption)
    place.get_by_label("Seed", exact=True).fill(str(seed))
    place.get_by_label("number input for Pictures a caption").fill(str(count))
    press(page, "Generate")
    return place


def test_a_caption_a_button_pictures(visit, tmp_path):
    page = visit()
    place = ask(page, "a red ring\na blue square", 4, 2)
    sources = drawn(place, 4)
    body = page.request.get(sources[2]).body()
    (tmp_path / "got.png").write_bytes(body)
    with Image.open(tmp_path / "got.png") as image:
        assert image.format == "PNG" and image.size == (16, 16)
        facts = json.loads(image.info["dalle2"])
    assert (facts["label"], facts["seed"], facts["sample"]) == ("a blue square", 4, 2)


def test_an_example_fills_the_caption_and_a_preset_the_steps(visit):
    page = visit()
    page.get_by_role("button", name="a blue square").click()
    expect(page.get_by_label("Captions, one a line")).to_have_value("a blue square")
    place = panel(page, "Generate")
    place.get_by_role("button", name="Steps and guidance").click()
    place.get_by_label("Preset").click()
    page.get_by_role("option", name="paper").click()
    expect(place.get_by_label("Steps: prior")).to_have_value("64/250/27/15")


def test_bad_input_is_told_on_the_page(visit, files):
    page = visit()
    press(page, "Generate")
    expect(page.get_by_text("There is no caption")).to_be_visible(timeout=PATIENCE)
    place = panel(page, "Variations")
    press(page, "Draw variations")
    expect(page.get_by_text("There is no picture")).to_be_visible(timeout=PATIENCE)
    give(place, files / "words.png")
    press(page, "Draw variations")
    said = page.get_by_text("words.png is no picture in a known format")
    expect(said).to_be_visible(timeout=PATIENCE)
    assert "Traceback" not in page.content()


def test_several_pages_that_click_at_once_all_get_their_pictures(visit):
    pages = [visit() for _ in range(4)]
    places = [ask(page, "a red ring", seed, 1) for seed, page in enumerate(pages)]
    for seed, place in enumerate(places):
        (source,) = drawn(place, 1)
        assert f"seed{seed}-00" in source


def test_the_slider_goes_from_one_picture_to_the_other(visit, files):
    page = visit()
    place = panel(page, "Interpolate")
    give(place, files / "one.png")
    expect(place.locator(".given img")).to_have_count(1, timeout=PATIENCE)
    give(place, files / "other.png", -1)
    expect(place.locator(".given img")).to_have_count(2, timeout=PATIENCE)
    place.get_by_label("number input for Pictures on the way").fill("3")
    press(page, "Draw the way")
    way = drawn(place, 3)
    name = [urllib.parse.urlsplit(source).path.rsplit("/", 1)[1] for source in way]
    assert len(set(name)) == 3
    for share, expected in ((0, name[0]), (1, name[2]), (0.5, name[1])):
        place.get_by_label("number input for Place on the way").fill(str(share))
        page.keyboard.press("Enter")
        page.wait_for_function(
            "name => [...document.querySelectorAll('.frame img')]"
            ".some(i => i.src.endsWith(name) && i.naturalWidth > 0)",
            arg=expected,
        )


def test_what_a_drawn_mask_covers_is_drawn_anew(visit, files, tmp_path):
    page = visit()
    place = panel(page, "Inpaint")
    put(place, files / "smooth.png")
    place.get_by_label("Brush", exact=True).click()
    box = place.locator("canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 60, y)
    page.mouse.down()
    page.mouse.move(x + 60, y, steps=12)
    page.mouse.up()
    press(page, "Inpaint")
    (source,) = drawn(place, 1)
    (tmp_path / "got.png").write_bytes(page.request.get(source).body())
    with Image.open(tmp_path / "got.png") as image:
        changed = differing(image, files / "smooth.png")
    assert changed[8, 8] and not changed[0].any() and not changed[-1].any()
    assert 0.02 < changed.mean() < 0.5


def put(place, file):
    """Gives the editor a dark picture; one that comes before it listens is lost."""
    place.locator("canvas").first.wait_for()
    place.page.wait_for_timeout(2000)
    for _ in range(6):
        give(place, file)
        if any(is_dark(place.locator("canvas").first) for _ in range(20)):
            return
    raise AssertionError("the picture does not appear on the canvas")


def is_dark(canvas):
    """Whether a canvas's middle row shows the dark of a picture; waits a little."""
    canvas.page.wait_for_timeout(250)
    with Image.open(io.BytesIO(canvas.screenshot())) as seen:
        middle = seen.height // 2
        row = seen.convert("L").crop((0, middle, seen.width, middle + 1))
        return row.getextrema()[0] < 20


def differing(image, file):
    """Where a picture of 16 x 16 is far from a file as it is read: bool [16, 16]."""
    import numpy as np

    from dalle2_jax.manipulate.reading import read_picture

    before = read_picture(file, 16).astype(int)
    return (abs(np.asarray(image).astype(int) - before) > 24).any(-1)


def test_a_chosen_picture_goes_to_another_tab(visit):
    page = visit()
    place = ask(page, "a red ring")
    drawn(place, 1)
    place.locator(".pictures img").first.click()
    press(page, "→ Variations")
    place = page.locator("[role=tabpanel]:visible")
    drawn(place, 1, ".given")
    place.get_by_label("number input for Variations").fill("2")
    press(page, "Draw variations")
    assert len(drawn(place, 2)) == 2
