"""The served page, by its own client: every tab, the queue, and what it must refuse."""

import concurrent.futures
import http.server
import json
import threading
import urllib.error
import urllib.request

import pytest
from PIL import Image
from served import served

HOW = "the page's tests: make test-browser"
pytest.importorskip("gradio", reason=HOW)
client_of = pytest.importorskip("gradio_client", reason=HOW)
handle_file = client_of.handle_file

SETTINGS = (3, "3", None)


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    with served(folder, tmp_path_factory.mktemp("page") / "made") as address:
        yield address


@pytest.fixture(scope="module")
def client(page, tmp_path_factory):
    where = tmp_path_factory.mktemp("downloads")
    return client_of.Client(page, verbose=False, download_files=where)


def pictures(gallery):
    return [one["image"] for one in gallery]


def test_generate_gives_png_files_with_provenance(client):
    gallery = client.predict("a red ring", 2, 5, "2/2/2", "", api_name="/generate")
    assert [one["caption"] for one in gallery] == ["a red ring"] * 2
    with Image.open(pictures(gallery)[1]) as image:
        assert image.format == "PNG" and image.size == (16, 16)
        facts = json.loads(image.info["dalle2"])
        assert (facts["label"], facts["seed"], facts["sample"]) == ("a red ring", 5, 1)
        assert "trainedAlgorithmicMedia" in str(image.info)


def test_every_other_tab_draws(client, files):
    one, other = handle_file(files / "one.png"), handle_file(files / "other.png")

    def draw(name, *given):
        return client.predict(*given, *SETTINGS, api_name=f"/{name}")

    assert len(draw("variations", one, 1.0, 2)) == 2
    frame, way = draw("interpolate", one, other, 3, "slerp", 1.0)
    with Image.open(frame) as last, Image.open(pictures(way)[-1]) as end:
        assert last.tobytes() == end.tobytes()
    _, way = draw("text_diff", one, "a red ring", "a blue square", 0.5, 3, 0.0)
    assert len(way) == 3
    assert len(draw("image_to_image", one, "", 0.5, 2)) == 2
    assert len(client.predict(one, 0, api_name="/upsample")) == 1


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("generate", ("", 1, 0, "", ""), "There is no caption"),
        ("generate", ("a red ring", 4, 0, "7000", ""), "7000"),
        ("generate", ("a red ring\n" * 20, 4, 0, "", ""), "1 to 32 a click"),
        ("variations", (None, 1.0, 2, *SETTINGS), "There is no picture"),
        ("variations", ("words.png", 1.0, 2, *SETTINGS), "no picture in a known"),
        ("variations", ("bomb.png", 1.0, 2, *SETTINGS), "too large to be decoded"),
    ],
)
def test_bad_input_comes_back_as_our_sentence(client, files, name, given, said):
    given = [handle_file(files / x) if str(x).endswith(".png") else x for x in given]
    with pytest.raises(client_of.exceptions.AppError, match=said) as error:
        client.predict(*given, api_name=f"/{name}")
    assert "Traceback" not in str(error.value)


def test_clicks_of_many_clients_lose_nothing(page, tmp_path):
    def one(seed):
        own = client_of.Client(page, verbose=False, download_files=tmp_path)
        given = ("a red ring", 1, seed, "2/2/2", "")
        return pictures(own.predict(*given, api_name="/generate"))

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        made = list(pool.map(one, range(6)))
    seeds = [json.loads(Image.open(some).info["dalle2"])["seed"] for (some,) in made]
    assert seeds == list(range(6))


def status(address, data=None, headers=()):
    """(HTTP status, body) of a request."""
    asked = urllib.request.Request(address, data, dict(headers))
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_files_of_the_machine_are_not_served(page, folder):
    for path in ("/etc/passwd", "setup.py", f"{folder}/dalle2.json", "../etc/passwd"):
        assert status(f"{page}gradio_api/file={path}")[0] in (403, 404)


def test_an_upload_has_a_limit(page):
    edge = "dalle2edge"
    head = f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="a.png"'
    body = f"{head}\r\n\r\n".encode() + bytes(21_000_000) + f"\r\n--{edge}--".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={edge}"}
    assert status(f"{page}gradio_api/upload", body, kind.items())[0] == 413


@pytest.fixture
def inner():
    """A server that must not be asked: (its address, paths asked for)."""
    asked = []

    class Inner(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

    server = http.server.HTTPServer(("127.0.0.1", 0), Inner)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/secret.png", asked
    server.shutdown()


def test_an_address_or_a_path_in_place_of_a_picture_is_refused(page, inner, files):
    address, asked = inner
    for sent in (
        {"path": address},
        {"path": "", "url": address},
        {"path": None, "url": address},
        {"path": "/etc/passwd"},
        {"path": str(files / "one.png")},
    ):
        picture = sent | {"meta": {"_type": "gradio.FileData"}}
        data = json.dumps({"data": [picture, 1.0, 1, *SETTINGS]}).encode()
        call = f"{page}gradio_api/call/variations"
        code, said = status(call, data, [("Content-Type", "application/json")])
        if code == 200:
            said = status(f"{call}/{json.loads(said)['event_id']}")[1]
            assert b"event: error" in said and b"event: complete" not in said
    assert not asked


def test_it_is_not_shared_and_tells_nobody(page):
    config = json.loads(status(f"{page}config")[1])
    assert not config["is_colab"] and not config["analytics_enabled"]
    assert not config.get("run_history")


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}]
)
def test_other_hosts_and_origins_are_refused(page, headers):
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n'
    body += b"\r\nhi\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    for address, data in ((page, None), (f"{page}gradio_api/upload", body)):
        asked = urllib.request.Request(address, data, headers | kind)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(asked, timeout=60)
        assert refused.value.code == 403
    own = urllib.request.Request(f"{page}gradio_api/upload", body, kind)
    with urllib.request.urlopen(own, timeout=60) as answer:
        assert answer.status == 200
