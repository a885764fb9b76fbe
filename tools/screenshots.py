"""Pictures of reports and of the teaching page, for README and docs.

    python tools/screenshots.py [NAME ...]

Reports are those that `python tools/figures.py run` left in runs/figures. Images of other people, whose
licence is unknown, are taken out. Needs Chromium on the PATH, and playwright for the teaching page.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from figures import ROOT, Book
from PIL import Image
from results import made_with, stamp

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
)
TEACH, TEACH_SIZE = "teach", (1280, 860)
LETTERS = {"alpha": "Greek/character01", "beta": "Greek/character02", "gamma": "Greek/character03"}
N_EACH, WAIT_MS = 9, 60_000
# a gamma, as shares of the pad's height about its middle
STROKE = (
    *((-0.16, -0.22), (-0.13, -0.26), (-0.08, -0.25), (-0.04, -0.17), (-0.01, -0.06), (0.0, 0.08)),
    *((0.0, 0.22), (-0.02, 0.32), (-0.05, 0.33), (-0.06, 0.26), (-0.02, 0.12), (0.06, -0.06), (0.17, -0.26)),
)


@dataclass(frozen=True)
class Shot:
    """Which report of which figure, and how much of its page."""

    figure: str
    report: str
    width_px: int
    height_px: int


SHOTS = {
    "report": Shot("odd-to-even", "run/report.html", 1000, 1400),
    "ants-and-bees": Shot("ants-and-bees", "model/report.html", 1100, 1210),
    "greek": Shot("greek", "run/report.html", 1280, 1500),
    "ranking": Shot("ranking", "ranking/report.html", 1000, 1770),
}


def browser() -> str:
    """Path of the browser."""
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    names = ", ".join(BROWSERS)
    sys.exit(f"no browser is on the PATH, expected one of {names}; for example: apt-get install chromium")


def report_shot(shot: Shot, place: Path) -> None:
    """The top of a report, without the images that it shows as examples."""
    report = ROOT / "runs/figures" / shot.figure / shot.report
    if not report.exists():
        sys.exit(
            f"{report.relative_to(ROOT)} is not there, expected the report of figure {shot.figure}; "
            f"run: python tools/figures.py run {shot.figure}"
        )
    page = re.sub(r'<ul class="examples">.*?</ul>', "", report.read_text(encoding="utf-8"), flags=re.DOTALL)
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        (home / "report.html").write_text(page, encoding="utf-8")
        # the window has more height than its page in some versions: taken taller, then cut
        command = [
            *(browser(), *FLAGS, f"--user-data-dir={home / 'profile'}"),
            f"--window-size={shot.width_px},{shot.height_px + 200}",
            *(f"--screenshot={home / 'shot.png'}", (home / "report.html").as_uri()),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if not (home / "shot.png").exists():
            sys.exit(
                f"the browser made no picture of {shot.figure}, expected one; it says: {done.stderr[-500:]}"
            )
        written(Image.open(home / "shot.png"), (shot.width_px, shot.height_px), place)
    stamp(place, made_with(ROOT, shot.figure))


def written(image: Image.Image, size: tuple[int, int], place: Path) -> None:
    """Cut to size. Its colours stay: 256 of them would change those of the strategies."""
    image.convert("RGB").crop((0, 0, *size)).save(place, optimize=True)


# ---- the teaching page ----


def teach_shot(place: Path) -> None:
    """The page after three Greek letters of Omniglot (MIT licence) were taught, and a gamma drawn."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit("playwright is not installed, expected it for the teaching page; pip install playwright")
    with served() as address, sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=browser(), args=list(FLAGS))
        page = opened.new_page(viewport=dict(zip(("width", "height"), TEACH_SIZE, strict=True)))
        page.set_default_timeout(WAIT_MS)
        page.goto(address)
        page.wait_for_function("window.headstart")
        for name, files in letters().items():
            taught(page, name, files)
        draw(page)
        page.wait_for_selector("#answer .hs-bars li")
        page.wait_for_timeout(1_000)
        shot = page.screenshot()
        opened.close()
    written(Image.open(io.BytesIO(shot)), TEACH_SIZE, place)
    book = Book(ROOT)
    stamp(place, book.digest(book.figures["teach_letters"]))


@contextmanager
def served() -> Iterator[str]:
    """The page's address while it is served, models kept in a temporary folder."""
    program = (
        "import sys; from pathlib import Path; from headstart.interfaces.teach.serving import serve_page; "
        "serve_page('drawings', Path(sys.argv[1]), host='127.0.0.1', port=0)"
    )
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-c", program, f"{home}/taught"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                yield server.stdout.readline().split()[2]
            finally:
                server.terminate()


def letters() -> dict[str, Sequence[bytes]]:
    """PNG files of the first people's drawings of each letter."""
    from headstart.data.readers.load import load

    data = load("omniglot-small")
    found = {}
    for name, label in LETTERS.items():
        drawings = data.images.pixels[data.labels == label][:N_EACH]  # type: ignore[attr-defined]
        found[name] = [png(pixels[..., 0]) for pixels in drawings]
    return found


def png(pixels: Any) -> bytes:
    """Pixels as a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def taught(page: Any, name: str, files: Sequence[bytes]) -> None:
    """A class with its examples, through the page's own controls."""
    page.fill("#fresh input, #fresh textarea", name)
    page.click("#begin")
    page.wait_for_selector(f"#label label.selected:has-text('{name}')")
    page.get_by_role("tab", name="Files").click()
    given = [
        {"name": f"{name}{number}.png", "mimeType": "image/png", "buffer": file}
        for number, file in enumerate(files)
    ]
    page.set_input_files("#files input[type=file]", given)
    page.wait_for_selector(f"#files :text('{name}{len(files) - 1}')")
    page.click("#teach")
    page.wait_for_function(
        "([examples, number]) => document.querySelectorAll(examples).length === number",
        arg=[f'#lesson [data-class="{name}"] figure', len(files)],
    )


def draw(page: Any) -> None:
    """The stroke, with the mouse."""
    page.get_by_role("tab", name="Draw").click()
    box = page.locator("#pad canvas").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for number, (x, y) in enumerate(smooth(smooth(smooth(STROKE)))):
        page.mouse.move(middle[0] + box["height"] * x, middle[1] + box["height"] * y)
        if not number:
            page.mouse.down()
    page.mouse.up()


def smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A line with its corners cut (Chaikin 1974); its ends stay."""
    cut = [points[0]]
    for (ax, ay), (bx, by) in pairwise(points):
        cut += [
            (0.75 * ax + 0.25 * bx, 0.75 * ay + 0.25 * by),
            (0.25 * ax + 0.75 * bx, 0.25 * ay + 0.75 * by),
        ]
    return [*cut, points[-1]]


def main() -> None:
    names = sys.argv[1:] or [*SHOTS, TEACH]
    for name in names:
        place = ROOT / "docs/images" / f"{name}.png"
        if name == TEACH:
            teach_shot(place)
        elif name in SHOTS:
            report_shot(SHOTS[name], place)
        else:
            sys.exit(f"picture {name!r} is unknown, expected one of {', '.join([*SHOTS, TEACH])}")
        print(f"wrote {place.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
