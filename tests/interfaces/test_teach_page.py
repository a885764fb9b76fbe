"""The teaching page in a browser: a real server, and a headless Chromium without other network access."""

from __future__ import annotations

import io
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_teach_classroom import KINDS, bomb, picture

from command import HANGUP
from headstart.data.readers.load import from_arrays
from headstart.models.model import open_model
from headstart.records import InputSpec
from headstart.sources.pixels import pixel_source
from headstart.strategies.places import Probe
from headstart.strategies.probe import learn_head

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("no chromium on the path: the page cannot be looked at", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("gradio", reason="gradio is not installed")

SERVE = """
import sys
from pathlib import Path
from headstart.interfaces.teach.serving import serve_page
serve_page(sys.argv[1], Path(sys.argv[2]), host="127.0.0.1", port=0)
"""
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
WAIT_MS = 60_000


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("teach") / "taught"


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server's temporary folder is."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, output: Path, temporary: Path) -> Iterator[str]:
    """A server that learns from raw ink, so that nothing has to be trained first."""
    pages = np.random.default_rng(0).integers(0, 256, (8, 28, 28)).astype(np.uint8)
    source = pixel_source(InputSpec(28, 28, 1, policy="ink"))
    learnt = learn_head(
        source, from_arrays(pages, np.repeat(["a", "b"], 4)), Probe("values", "flat", "ridge"), spare=False
    )
    folder = learnt.model.save(tmp_path_factory.mktemp("source") / "ink")
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(folder), str(output)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary), "GRADIO_HEARTBEAT_INTERVAL": "1"},
    )
    try:
        assert server.stdout is not None
        said = server.stdout.readline()
        assert "http://127.0.0.1:" in said, "the server says where it is"
        yield said.split()[2]
        server.terminate()
        assert server.wait(30) == 0
        assert list(temporary.iterdir()) == []
    finally:
        server.kill()
        server.wait(20)
        assert server.stdout is not None
        server.stdout.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


class Visitor:
    """One person's page; every request is noted."""

    def __init__(self, browser: Any, address: str, **settings: Any) -> None:
        self.context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, "permissions": ["camera"], **settings}
        )
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.faults: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.set_default_timeout(WAIT_MS)
        self.page.goto(address)
        self.page.wait_for_selector("#pad canvas")
        self.page.wait_for_function("window.headstart")

    def add_class(self, name: str) -> None:
        self.page.fill("#fresh input, #fresh textarea", name)
        self.page.click("#begin")
        self.page.wait_for_selector(f"#label label.selected:has-text('{name}')")

    def teach(self) -> None:
        self.page.click("#teach")

    def draw(self, kind: str, number: int) -> None:
        """A bar or a ring with the mouse."""
        box = self.page.locator("#pad canvas").bounding_box()
        scale, turn = box["height"] * (0.3 + 0.01 * number), 0.1 * number
        round_ = [(math.cos(a / 8 * math.tau), math.sin(a / 8 * math.tau)) for a in range(9)]
        points = {
            "ring": round_,
            "bar": [(math.sin(turn), math.cos(turn)), (-math.sin(turn), -math.cos(turn))],
        }[kind]
        middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        for place, (x, y) in enumerate(points):
            self.page.mouse.move(middle[0] + scale * x, middle[1] + scale * y, steps=4)
            if not place:
                self.page.mouse.down()
        self.page.mouse.up()

    def files(self, *files: tuple[str, bytes]) -> None:
        self.page.get_by_role("tab", name="Files").click()
        self.page.set_input_files(
            "#files input[type=file]",
            [{"name": name, "mimeType": "application/octet-stream", "buffer": data} for name, data in files],
        )
        self.page.wait_for_selector(f"#files :text('{files[-1][0].partition('.')[0]}')")

    def count(self, name: str, number: int) -> None:
        """Wait until a class has so many examples."""
        self.page.wait_for_function(
            "([examples, number]) => document.querySelectorAll(examples).length === number",
            arg=[f'#lesson [data-class="{name}"] figure', number],
        )

    def says(self, place: str, text: str) -> str:
        """Wait until a part of the page holds a text; all that it says then."""
        self.page.wait_for_function(
            "([place, text]) => document.querySelector(place)?.innerText.includes(text)", arg=[place, text]
        )
        return str(self.page.inner_text(place))


@pytest.fixture
def visitor(browser: Any, address: str) -> Iterator[Visitor]:
    one = Visitor(browser, address)
    yield one
    one.context.close()
    assert one.faults == []
    assert {url.split("/")[2] for url in one.asked if url.startswith("http")} == {address.split("/")[2]}


def taught(visitor: Visitor, each: int = 4) -> None:
    for kind in KINDS:
        visitor.add_class(kind)
        visitor.files(*((f"{kind}{seed}.png", picture(kind, seed)) for seed in range(each)))
        visitor.teach()
        visitor.count(kind, each)


@pytest.mark.slow
def test_drawings_are_taught_and_predicted(visitor: Visitor, output: Path, tmp_path: Path) -> None:
    for kind in ("bar", "ring"):
        visitor.add_class(kind)
        for number in range(4):
            visitor.draw(kind, number)
            visitor.teach()
            visitor.count(kind, number + 1)
            visitor.page.wait_for_function("window.headstart.drawing() === ''")  # ready for the next one
    said = visitor.says("#lesson", "of 8 right")
    assert "95\u202f% interval" in said and "fewer than 5 examples" in said
    visitor.draw("ring", 5)
    visitor.says("#answer .hs-bars li", "ring")
    assert "Nearest example: ring, similarity" in visitor.says("#answer", "Nearest example")
    visitor.page.click("[data-pad=undo]")
    visitor.draw("bar", 5)
    visitor.says("#answer .hs-bars li", "bar")
    visitor.page.fill("#name input, #name textarea", "bars and rings")
    visitor.page.click("#save")
    visitor.says("#saved", "headstart predict")
    assert open_model(output / "bars and rings").classes == ("bar", "ring")
    asked = tmp_path / "asked.png"
    asked.write_bytes(picture("ring", 50))
    done = subprocess.run(
        [sys.executable, "-m", "headstart", "predict", str(output / "bars and rings"), str(asked)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0 and "asked.png" in done.stdout


@pytest.mark.slow
def test_many_files_at_once_and_one_that_is_no_image(visitor: Visitor) -> None:
    taught(visitor)
    visitor.says("#lesson", "of 12 right")
    visitor.files(*((f"ring{seed}.png", picture("ring", 30 + seed)) for seed in range(3)))
    visitor.page.wait_for_function("document.querySelectorAll('#answer .hs-many li').length === 3")
    visitor.page.click("#label label:has-text('ring')")
    visitor.says("#teach", "Teach ring")
    visitor.files(("good.png", picture("ring", 40)), ("notes.txt", b"hello"), ("bomb.png", bomb()))
    visitor.teach()
    said = visitor.says("#notice .hs-notice", "notes.txt")
    assert said == (
        "Image 'notes.txt' cannot be read (it is a text file, not an image), expected a complete image in one of "
        "PNG, JPEG, BMP, GIF, WEBP, TIFF, PPM, AVIF; leave it out. So is 1 other."
    )
    visitor.count("ring", 8)  # what was dropped before is still on the page
    visitor.page.wait_for_timeout(1500)  # the prediction after that erased it
    assert visitor.page.inner_text("#notice") == said


def files_in(folder: Path) -> list[Path]:
    return [one for one in folder.rglob("*") if one.is_file() and one.name != ".owner"]


def holds(folder: Path, number: int) -> bool:
    """Wait until a folder holds so many files."""
    for _ in range(600):
        if len(files_in(folder)) == number:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_uploads_do_not_stay(browser: Any, address: str, temporary: Path, visitor: Visitor) -> None:
    visitor.add_class("ring")
    visitor.files(*((f"ring{seed}.png", picture("ring", seed)) for seed in range(3)))
    assert holds(temporary, 3)
    visitor.says("#files", "ring2")
    visitor.teach()
    visitor.count("ring", 3)
    assert holds(temporary, 0)
    other = Visitor(browser, address)
    other.files(("never.png", picture("ring", 9)))
    assert holds(temporary, 1)
    other.context.close()
    assert holds(temporary, 0)  # the page's heartbeat has ended


@pytest.mark.slow
def test_a_file_for_other_decoders_is_no_image(visitor: Visitor) -> None:
    """Gradio would open it with every decoder of Pillow; the one for EPS starts Ghostscript."""
    visitor.add_class("ring")
    visitor.files(("photo.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n%%EOF\n"))
    visitor.says("#notice", "'photo.png' cannot be read (it is a PostScript file, not an image)")


@pytest.mark.slow
def test_a_page_of_somebody_else_reaches_nothing(browser: Any, address: str, temporary: Path) -> None:
    """At another port of this machine, which browsers call the same site."""
    before = set(files_in(temporary))  # of visitors who left: they go when the page's heartbeat ends
    page = browser.new_page()
    page.route(
        "http://127.0.0.1:45678/", lambda route: route.fulfill(body="<p>evil", content_type="text/html")
    )
    page.goto("http://127.0.0.1:45678/")
    program = """async address => {
      const found = [], form = new FormData();
      form.append('files', new Blob(['x']), 'a.png');
      for (const more of [{}, {method: 'POST', body: form}, {method: 'POST', body: form, mode: 'no-cors'}]) {
        const answer = fetch(address + (more.body ? 'gradio_api/upload' : ''), more);
        found.push(await answer.then(r => r.text()).catch(() => ''));
      }
      return found;
    }"""
    assert page.evaluate(program, address) == ["", "", ""]
    assert set(files_in(temporary)) <= before
    page.close()


@pytest.mark.slow
def test_removing_an_example_and_a_class(visitor: Visitor) -> None:
    taught(visitor, 2)
    visitor.page.locator("#lesson [data-class=bar] figure").first.hover()
    visitor.page.locator("#lesson [data-class=bar] figure [data-do=remove]").first.click()
    visitor.count("bar", 1)
    visitor.page.click("#lesson [data-class=cross] header [data-do=drop]")
    visitor.page.wait_for_function("!document.querySelector('#lesson [data-class=cross]')")
    assert visitor.page.locator("#label label").all_inner_texts() == ["bar", "ring"]
    visitor.page.click("#lesson [data-class=bar] [data-do=choose]")
    visitor.says("#teach", "Teach bar")


@pytest.mark.slow
def test_two_visitors_do_not_mix(browser: Any, address: str, visitor: Visitor) -> None:
    visitor.add_class("mine")
    other = Visitor(browser, address)
    try:
        other.add_class("theirs")
        assert "mine" not in other.page.inner_text("body") and "theirs" not in visitor.page.inner_text("body")
        visitor.add_class("more")
        assert visitor.page.locator("#label label").all_inner_texts() == ["mine", "more"]
    finally:
        other.context.close()


@pytest.mark.slow
def test_the_camera(visitor: Visitor) -> None:
    visitor.add_class("face")
    visitor.page.get_by_role("tab", name="Camera").click()
    visitor.page.locator("#camera button:visible").first.click()
    visitor.page.wait_for_function("document.querySelector('#camera video')?.videoWidth > 0")
    visitor.page.locator("#camera button[aria-label='capture photo']").click()
    visitor.page.wait_for_selector("#camera img")
    visitor.teach()
    visitor.count("face", 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["../../up", "/etc/x", ".hidden", ""])
def test_no_name_escapes_the_folder(visitor: Visitor, output: Path, name: str) -> None:
    taught(visitor, 2)
    visitor.page.fill("#name input, #name textarea", name)
    visitor.page.click("#save")
    visitor.says("#saved", "type a plain name")
    assert not (output.parent / "up").exists() and not (output.parent.parent / "up").exists()


@pytest.mark.slow
def test_missing_input_gets_a_plain_sentence(visitor: Visitor) -> None:
    visitor.page.click("#begin")
    visitor.says("#notice", "Class name is ''")
    assert visitor.page.is_disabled("#teach")
    visitor.add_class("bar")
    visitor.teach()
    visitor.says("#notice", "There is no image, expected one to teach")
    visitor.files(("white.png", blank()))
    visitor.teach()
    visitor.says("#notice", "is blank, expected an image with content")
    visitor.page.fill("#name input, #name textarea", "x")
    visitor.page.click("#save")
    visitor.says("#saved", "Fewer than 2 classes have an example")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_on_a_phone(browser: Any, address: str, scheme: str) -> None:
    phone = Visitor(
        browser, address, viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True
    )
    try:
        taught(phone, 2)
        assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390
        paper = phone.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == {"light": "rgb(253, 253, 251)", "dark": "rgb(20, 20, 23)"}[scheme]
        small = phone.page.locator("button:visible:not([tabindex='-1'])").evaluate_all(
            "all => all.filter(one => one.getBoundingClientRect().height < 24).map(one => one.outerHTML)"
        )
        assert small == []
    finally:
        phone.context.close()


def test_without_gradio_the_error_says_how_to_install_it() -> None:
    program = "import sys; sys.modules['gradio'] = None\nimport headstart.interfaces.teach.page"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert "pip install 'headstart[teach]'" in done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, HANGUP])
def test_a_signal_during_the_start_leaves_nothing(tmp_path: Path, number: int) -> None:
    """The process ended between the making of its folder and the first request, which are seconds."""
    server = subprocess.Popen(
        [sys.executable, "-m", "headstart", "teach", "--source", "pixels", "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        for _ in range(1200):
            if any(tmp_path.glob("headstart-teach-*")):
                break
            time.sleep(0.05)
        server.send_signal(number)
        assert server.wait(60) in (0, 128 + number)
        assert not any(tmp_path.glob("headstart-teach-*"))
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
def test_a_port_in_use(address: str, tmp_path: Path) -> None:
    program = SERVE.replace("port=0", f"port={address.rpartition(':')[2].strip('/')}")
    done = subprocess.run(
        [sys.executable, "-c", program, "pixels", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "SettingError" in done.stderr.splitlines()[-1] and "--port" in done.stderr


def blank() -> bytes:
    file = io.BytesIO()
    Image.new("L", (60, 60), 255).save(file, "PNG")
    return file.getvalue()
