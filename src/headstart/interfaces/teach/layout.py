"""The look of the teaching page: its theme, its controls and where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.interfaces.teach.markup import (
    lesson_html,
    prediction_html,
)
from headstart.records import Source
from headstart.system.optional import require

if TYPE_CHECKING:
    import gradio as gr
else:
    gr = require("gradio", extra="teach", for_="the teaching page")


__all__ = [
    "CAMERA",
    "DRAW",
    "FILES",
    "HERE",
    "Components",
    "html_block",
    "page_head",
    "page_theme",
    "predict_side",
    "teach_side",
]

HERE = Path(__file__).parent
_CLICKS = """element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-do]');
  if (button) trigger('click', {todo: button.dataset.do, what: button.dataset.what});
});"""


_FONTS = (
    "ui-sans-serif",
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Roboto",
    "Helvetica Neue",
    "Arial",
    "sans-serif",
)


_MONO = ("ui-monospace", "SF Mono", "Menlo", "Consolas", "Liberation Mono", "monospace")


DRAW = "Draw"
FILES = "Files"
CAMERA = "Camera"


_PAD = (
    '<div class="hs-pad"><canvas width="640" height="480" tabindex="0" aria-label="draw here"></canvas>'
    '<span>Draw here</span><div><button type="button" data-pad="undo">Undo</button>'
    '<button type="button" data-pad="clear">Clear</button></div></div>'
)


def html_block(value: str = "", **settings: Any) -> Any:
    """HTML styled only by the style sheet of the page."""
    return gr.HTML(value, apply_default_css=False, **settings)


def page_theme() -> Any:
    """Colours, fonts and sizes of the page."""
    blue = gr.themes.Color(
        *("#e3edf5", "#cbdfee", "#a9cbe4", "#7fb3d8", "#5eb0f0", "#2f86c4", "#0063a8"),
        *("#00558f", "#004676", "#00375d", "#002a47"),
    )
    theme = gr.themes.Base(
        primary_hue=blue, neutral_hue="zinc", font=_FONTS, font_mono=_MONO, radius_size="md"
    )
    paper, tint, rule, ink, muted = (
        {"": f"var(--hs-{name})", "_dark": f"var(--hs-{name})"}
        for name in ("paper", "tint", "rule", "ink", "muted")
    )
    colours = {
        "body_background_fill": paper,
        "block_background_fill": paper,
        "background_fill_primary": paper,
        "background_fill_secondary": tint,
        "input_background_fill": paper,
        "border_color_primary": rule,
        "block_border_color": rule,
        "input_border_color": rule,
        "body_text_color": ink,
        "body_text_color_subdued": muted,
        "block_label_text_color": muted,
        "block_title_text_color": muted,
    }
    return theme.set(
        **{f"{name}{mode}": value for name, one in colours.items() for mode, value in one.items()},
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_500",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#0b1620",
        block_shadow="none",
        block_shadow_dark="none",
    )


def page_head(source: Source | None) -> str:
    """The heading, with the name of the source."""
    name = "drawings or photos" if source is None else Path(source.name).name
    return (
        f'<div class="hs-head"><p class="hs-kicker">Headstart, from {escape(name)}</p>'
        "<h1>Teach by example</h1><p>Name classes, show a few images of each, and try new ones. "
        "Nothing leaves the machine that serves this page.</p></div>"
    )


@dataclass(frozen=True)
class Components:
    """Components of the page by what they hold."""

    way: Any
    drawing: Any
    pad: Any
    files: Any
    camera: Any
    tabs: Sequence[Any]
    label: Any
    teach: Any
    done: Any
    notice: Any
    prediction: Any
    lesson: Any
    new_class: Any
    add_class: Any
    name: Any
    save: Any
    saved: Any


def teach_side() -> dict[str, Any]:
    """Components for class names, image input, and the class to teach."""
    new_class, add_class = _line("New class", "fresh", "Add class", "begin")
    label = gr.Radio(
        [], show_label=False, container=False, elem_id="label", interactive=True, visible="hidden"
    )
    tabs = []
    with gr.Tabs():
        with gr.Tab(DRAW) as tab:
            tabs.append(tab)
            js = (HERE / "teach.js").read_text(encoding="utf-8")
            pad = html_block(html_template=_PAD, js_on_load=js, elem_id="pad")
        with gr.Tab(FILES) as tab:
            tabs.append(tab)
            files = gr.File(file_count="multiple", show_label=False, height=300, elem_id="files")
        with gr.Tab(CAMERA) as tab:
            tabs.append(tab)
            camera = gr.Image(
                sources=["webcam"],
                type="filepath",
                format="png",
                show_label=False,
                height=340,
                elem_id="camera",
            )
    teach = gr.Button("Teach", variant="primary", elem_id="teach", interactive=False, size="md")
    return {
        "new_class": new_class,
        "add_class": add_class,
        "label": label,
        "way": gr.Textbox(visible=False),
        "drawing": gr.Textbox(visible=False),
        "pad": pad,
        "files": files,
        "camera": camera,
        "tabs": tabs,
        "teach": teach,
        "done": gr.Textbox(visible=False),
        "notice": html_block(elem_id="notice"),
    }


def predict_side() -> dict[str, Any]:
    """Components for the prediction, the accuracy and saving the model."""
    prediction = html_block(prediction_html(None), elem_id="answer")
    lesson = html_block(lesson_html(None), js_on_load=_CLICKS, elem_id="lesson")
    name, save = _line("Name of the model", "name", "Save model", "save")
    return {
        "prediction": prediction,
        "lesson": lesson,
        "name": name,
        "save": save,
        "saved": html_block(elem_id="saved"),
    }


def _line(placeholder: str, box_id: str, caption: str, button_id: str) -> tuple[Any, Any]:
    """A text box with a button next to it."""
    with gr.Row(elem_classes="hs-row"):
        box = gr.Textbox(
            placeholder=placeholder,
            show_label=False,
            scale=2,
            min_width=140,
            max_lines=1,
            elem_id=box_id,
            container=False,
        )
        button = gr.Button(caption, scale=1, min_width=100, elem_id=button_id, size="md")
    return box, button
