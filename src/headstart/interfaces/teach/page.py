"""The teaching page: draw, drop or photograph a few images of each class and see the accuracy at once."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NoBase64
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.types import ASGIApp

from headstart.errors import DataError, HeadstartError
from headstart.interfaces.teach.classroom import Classroom
from headstart.interfaces.teach.gate import FILE_BYTES
from headstart.interfaces.teach.layout import (
    DRAW,
    FILES,
    HERE,
    Components,
    html_block,
    page_head,
    page_theme,
    predict_side,
    teach_side,
)
from headstart.interfaces.teach.live_source import FittingSource, LiveSource, live_source, thumbnail_address
from headstart.interfaces.teach.markup import (
    lesson_html,
    notice_html,
    prediction_html,
    predictions_html,
    sentence,
)
from headstart.interfaces.teach.waiting_files import WaitingFiles
from headstart.models.novelty_rate import NoveltyRate
from headstart.records import Source
from headstart.system.optional import require

if TYPE_CHECKING:
    import gradio as gr
else:
    gr = require("gradio", extra="teach", for_="the teaching page")

__all__ = ["make_app", "make_page"]

_MOST_PREDICTED = 12  # images of one upload that are predicted; all of them can be taught
_MOST_ROOMS = 100  # the least recently used one is dropped
_MOST_WAITING = 200  # events of all visitors together
_MOST_BYTES = 2**30  # of the examples of all visitors together
_WITH_IMAGE = "(way, drawing, ...rest) => [window.headstart.way(), window.headstart.drawing(), ...rest]"
_CLEAR = "(done) => { if (done) window.headstart.clear(); }"

Sent = Mapping[str, Any]
"""An uploaded file as the gate describes it: ``path`` and ``orig_name``."""


def make_page(
    source: Source | None, output: Path, files: WaitingFiles, novelty_rate: NoveltyRate = None
) -> gr.Blocks:
    """Build the page without serving it; ``files`` are those that visitors have sent.

    Without a source each lesson takes that for drawings or that for photos, whichever its first example is.
    """
    live = FittingSource() if source is None else live_source(source)
    handlers = _Handlers(live, output, files, novelty_rate)
    page = gr.Blocks(analytics_enabled=False, title="Headstart: teach by example", fill_width=True)
    with page:
        html_block(page_head(source))
        with gr.Row(equal_height=False, elem_classes="hs-sides"):
            with gr.Column(scale=1, min_width=320):
                parts = teach_side()
            with gr.Column(scale=1, min_width=320):
                parts |= predict_side()
        _connect(handlers, Components(**parts))
        page.unload(handlers.leave)
        page.queue(max_size=_MOST_WAITING, api_open=False)
    return page


def make_app(page: gr.Blocks, host: str, port: int) -> tuple[ASGIApp, Callable[[], None]]:
    """The application of a page, with our look, and a function that ends its streams to open browsers."""
    app = gr.mount_gradio_app(
        Starlette(),
        page,
        "",
        server_name=host,
        server_port=port,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=FILE_BYTES,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=page_theme(),
        css_paths=HERE / "teach.css",
    )
    page.has_launched = True  # or gradio would not check which files a request names
    mounted: Any = app.routes[-1]

    def stop() -> None:
        page.is_running = False
        mounted.app.stop_event.set()

    return app, stop


def _connect(handlers: _Handlers, at: Components) -> None:
    """Connect events to handlers."""
    image_inputs = [at.way, at.drawing, at.files, at.camera]
    now: dict[str, Any] = {"show_progress": "hidden"}
    # one queue for all events that predict, or an older prediction could arrive last
    prediction_event: dict[str, Any] = {
        "fn": handlers.predict,
        "inputs": image_inputs,
        "outputs": [at.prediction, at.notice],
        "js": _WITH_IMAGE,
        "concurrency_id": "ask",
        "preprocess": False,  # gradio would open the files with every decoder that Pillow has
        **now,
    }
    for event in (at.pad.input, at.files.change, at.camera.change):
        event(trigger_mode="always_last", **prediction_event)
    for tab in at.tabs:
        tab.select(**prediction_event)
    board = [at.label, at.teach, at.lesson, at.notice]
    for event in (at.add_class.click, at.new_class.submit):
        event(handlers.add_class, at.new_class, [at.new_class, *board], **now)
    at.teach.click(
        handlers.teach,
        [*image_inputs, at.label],
        [at.done, at.files, at.camera, *board],
        js=_WITH_IMAGE,
        preprocess=False,
        **now,
    ).then(None, at.done, None, js=_CLEAR)
    at.label.input(handlers.choose, at.label, board, **now)
    at.lesson.click(handlers.clicked, at.label, board, **now).then(**prediction_event)
    for event in (at.save.click, at.name.submit):
        event(handlers.save, at.name, at.saved, **now)


@dataclass
class _Visitor:
    """A classroom, and the uploaded files that its page has shown."""

    room: Classroom
    paths: set[str] = field(default_factory=set)


class _Handlers:
    """Handlers of the page's events, each in the classroom of the visitor."""

    def __init__(
        self, live: LiveSource | FittingSource, output: Path, files: WaitingFiles, novelty_rate: NoveltyRate
    ) -> None:
        self._live, self._output, self._files = live, output, files
        self._novelty_rate = novelty_rate
        self._visitors: OrderedDict[str, _Visitor] = OrderedDict()
        self._lock = Lock()

    def _visitor(self, request: gr.Request) -> _Visitor:
        """The visitor's own classroom; a `gr.State` would copy the first one, and comes after the page."""
        with self._lock:
            key = str(request.session_hash)
            one = self._visitors.setdefault(key, _Visitor(Classroom(self._live, self._novelty_rate)))
            self._visitors.move_to_end(key)
            while len(self._visitors) > _MOST_ROOMS:
                self._files.remove(self._visitors.popitem(last=False)[1].paths)
        return one

    def _room(self, request: gr.Request) -> Classroom:
        return self._visitor(request).room

    def leave(self, request: gr.Request) -> None:
        """Drop the classroom when the page is closed: nobody can come back to it."""
        with self._lock:
            if one := self._visitors.pop(str(request.session_hash), None):
                self._files.remove(one.paths)

    def predict(
        self, way: str, drawing: str, files: list[Sent] | None, camera: Sent | None, request: gr.Request
    ) -> tuple[str, Any]:
        """Predictions for the images on the page, and a notice of errors."""
        visitor = self._visitor(request)
        images = self._images(visitor, way, drawing, files, camera)
        if not images:  # as after teaching, whose notice of files that cannot be read must stay
            return prediction_html(None), gr.skip()
        predictions, faults = [], []
        for sent in images[:_MOST_PREDICTED]:
            try:
                name, content = self._named(sent)
                predictions.append(
                    (name, thumbnail_address(content, name), visitor.room.predict(content, name))
                )
            except HeadstartError as error:
                faults.append(sentence(error))
        if not predictions:
            return prediction_html(None), notice_html(" ".join(faults[:1]), bad=True)
        shown = (
            prediction_html(predictions[0][2], predictions[0][1])
            if len(predictions) == 1
            else predictions_html(predictions)
        )
        return shown, notice_html(_some(faults), bad=True)

    def teach(
        self,
        way: str,
        drawing: str,
        files: list[Sent] | None,
        camera: Sent | None,
        label: str | None,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        """Add every image on the page to the class; those that cannot be read are named."""
        visitor = self._visitor(request)
        taught, faults = 0, []
        try:
            images = self._images(visitor, way, drawing, files, camera)
            if not isinstance(label, str):
                raise DataError("no class is chosen, expected one to teach; add a class first")
            if not images:
                raise DataError(
                    "there is no image, expected one to teach; draw, drop or photograph one first"
                )
            for sent in images:
                try:
                    name, content = self._named(sent)
                    self._check_room_for(len(content))
                    visitor.room.add(label, content, name)
                    taught += 1
                except HeadstartError as error:
                    faults.append(sentence(error))
        except HeadstartError as error:
            faults.append(sentence(error))
        kept = (gr.skip(), gr.skip()) if not taught else (None, None)
        if taught:
            self._files.remove(visitor.paths)
            visitor.paths.clear()
        panel = self._class_panel(visitor.room, label, _some(faults), bad=True)
        return ("yes" if taught else "", *kept, *panel)

    def add_class(self, name: str, request: gr.Request) -> tuple[Any, ...]:
        """Add a class and select it."""
        room = self._room(request)
        try:
            label = room.add_class(name)
        except HeadstartError as error:
            return (gr.skip(), gr.skip(), gr.skip(), gr.skip(), notice_html(sentence(error), bad=True))
        return ("", *self._class_panel(room, label))

    def choose(self, label: str, request: gr.Request) -> tuple[Any, ...]:
        """Select another class."""
        return self._class_panel(self._room(request), label)

    def clicked(self, label: str | None, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """Handle a click on the lesson: select a class, remove it, or remove an example."""
        room = self._room(request)
        try:
            if event.todo == "choose":
                label = str(event.what)
            elif event.todo == "drop":
                room.remove_class(str(event.what))
            elif event.todo == "remove":
                room.remove(int(event.what))
        except (HeadstartError, ValueError) as error:
            return self._class_panel(room, label, sentence(error), bad=True)
        return self._class_panel(room, label)

    def save(self, name: str, request: gr.Request) -> str:
        """Write the model folder."""
        try:
            folder = self._room(request).save(self._output, name)
        except HeadstartError as error:
            return notice_html(sentence(error), bad=True)
        except OSError as error:
            return notice_html(f"The model cannot be written: {error.strerror}.", bad=True)
        return notice_html(f"Saved. Use it with: headstart predict '{folder}' IMAGE")

    def _class_panel(
        self, room: Classroom, label: str | None, message: str = "", *, bad: bool = False
    ) -> tuple[Any, ...]:
        """The class chooser, its button, the lesson and the notice."""
        classes = list(room.classes)
        label = label if label in classes else (classes[0] if classes else None)
        button = gr.Button(f"Teach {label}" if label else "Teach", interactive=label is not None)
        return (
            gr.Radio(choices=classes, value=label, visible=True if classes else "hidden"),
            button,
            lesson_html(room, label),
            notice_html(message, bad=bad),
        )

    def _images(
        self, visitor: _Visitor, way: str, drawing: str, files: list[Sent] | None, camera: Sent | None
    ) -> list[Sent]:
        """The images of the open tab; a drawing has its ``content``."""
        if way == DRAW:
            return [{"content": _png(str(drawing)), "orig_name": "the drawing"}] if drawing else []
        sent: list[Sent] = list(files or [])
        if way != FILES:
            sent = [{**camera, "orig_name": "the photo"}] if camera else []
        visitor.paths |= {str(one["path"]) for one in sent}
        return sent

    def _named(self, sent: Sent) -> tuple[str, bytes]:
        """Name and content of an image."""
        name = str(sent["orig_name"]) or "the image"
        return name, sent["content"] if "content" in sent else self._files.read(str(sent["path"]), name)

    def _check_room_for(self, n_bytes: int) -> None:
        with self._lock:
            held = sum(one.room.n_bytes for one in self._visitors.values())
        if held + n_bytes > _MOST_BYTES:
            raise DataError(
                f"the examples of all visitors have {held:,} bytes, expected at most {_MOST_BYTES:,}; save the "
                "model and close the page, or use smaller images"
            )


def _png(address: str) -> bytes:
    """The bytes of a canvas's data address; empty, which is no image, for anything else."""
    try:
        return b64decode(address.partition(",")[2][: 2 * FILE_BYTES], validate=True)
    except (NoBase64, ValueError):
        return b""


def _some(faults: Sequence[str]) -> str:
    """The first fault in full, and the number of the others."""
    more = len(faults) - 1
    others = f" So {'is 1 other' if more == 1 else f'are {more} others'}." if more > 0 else ""
    return " ".join(faults[:1]) + others
