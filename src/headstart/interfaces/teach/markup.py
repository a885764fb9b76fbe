"""HTML of the teaching page: the lesson, a prediction, a notice; apart from gradio, and computing nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from headstart.evaluation.records import Score
from headstart.interfaces.teach.classroom import Classroom
from headstart.interfaces.teach.lesson import Example, Lesson, LessonPrediction
from headstart.records import NONE_OF_THESE

__all__ = ["lesson_html", "notice_html", "prediction_html", "predictions_html", "sentence"]

_STEPS = (
    "Name your classes: two or more.",
    "Show a few images of each: draw them, drop files, or use the camera.",
    "Try a new image. Then save the model.",
)
_NO_ACCURACY_YET = "The accuracy appears here once two classes have two examples each."
_NO_PREDICTION_YET = "Draw, or show an image: once two classes are taught, its class is predicted."


def sentence(error: Exception) -> str:
    """An error of ours as a sentence, with a capital and a full stop."""
    text = str(error).splitlines()[0]
    return f"{text[:1].upper()}{text[1:]}."


def notice_html(message: str, *, bad: bool = False) -> str:
    """A notice of one line; empty for an empty message."""
    kind = "hs-notice hs-bad" if bad else "hs-notice"
    return f'<p class="{kind}" role="status">{escape(message)}</p>' if message else ""


def lesson_html(room: Classroom | None, chosen: str | None = None) -> str:
    """Accuracy, remarks, and every class with its examples and the buttons that remove them."""
    if room is None or not room.classes:
        steps = "".join(f"<li>{one}</li>" for one in _STEPS)
        return f'<div class="hs-lesson"><ol class="hs-steps">{steps}</ol></div>'
    lesson = room.lesson()
    remarks = "".join(f"<li>{escape(one)}</li>" for one in lesson.remarks)
    cards = "".join(_card(name, room.examples(name), lesson, chosen=name == chosen) for name in room.classes)
    listed = f'<ul class="hs-remarks">{remarks}</ul>' if remarks else ""
    return f'<div class="hs-lesson">{_score(lesson)}{listed}<div class="hs-classes">{cards}</div></div>'


def prediction_html(prediction: LessonPrediction | None, address: str = "") -> str:
    """The prediction for one image: class, a bar for every class, the nearest example."""
    if prediction is None:
        return f'<div class="hs-answer"><p class="hs-hint">{_NO_PREDICTION_YET}</p></div>'
    none = prediction.predicted == NONE_OF_THESE
    bars = "".join(
        _bar(name, value, best=not none and name == prediction.predicted)
        for name, value in _sorted(prediction)
    )
    why = _novelty(prediction.novelty)
    thumb = f'<img src="{address}" alt="the image">' if address else ""
    return (
        f'<div class="hs-answer{" hs-none" if none else ""}"><div class="hs-called">{thumb}'
        f"<div><strong data-called>{escape(prediction.predicted)}</strong><span>{why}</span></div></div>"
        f'<ol class="hs-bars">{bars}</ol>'
        f'<div class="hs-nearest"><img src="{prediction.nearest.address}" alt="nearest example">'
        f"<span>Nearest example: {escape(prediction.nearest.label)}, similarity {prediction.similarity:.2f}</span>"
        "</div></div>"
    )


def predictions_html(predictions: Sequence[tuple[str, str, LessonPrediction | None]]) -> str:
    """The predictions for several images, one line each."""
    if all(prediction is None for _, _, prediction in predictions):
        return prediction_html(None)
    lines = "".join(
        f'<li><img src="{address}" alt=""><span>{escape(name)}</span>'
        f"<b data-called>{escape(prediction.predicted)}</b><i>{_surety(prediction)}</i></li>"
        for name, address, prediction in predictions
        if prediction is not None
    )
    return f'<div class="hs-answer"><ol class="hs-many">{lines}</ol></div>'


def _percent(share: float) -> str:
    return f"{100 * share:.0f}&#8239;%"


def _surety(prediction: LessonPrediction) -> str:
    return (
        ""
        if prediction.predicted == NONE_OF_THESE
        else _percent(max(one for _, one in prediction.probabilities))
    )


def _novelty(novelty: float | None) -> str:
    if novelty is None:
        return "Too few examples to detect none of these."
    if novelty > 1:
        return f"Unlike all examples: {novelty:.2f} times the novelty threshold."
    return f"Similar to the examples: {max(novelty, 0):.2f} of the novelty threshold."


def _sorted(prediction: LessonPrediction) -> list[tuple[str, float]]:
    return sorted(prediction.probabilities, key=lambda one: -one[1])


def _bar(name: str, value: float, *, best: bool) -> str:
    return (
        f"<li{' class=hs-best' if best else ''}><span>{escape(name)}</span>"
        f'<div><i style="width:{100 * value:.1f}%"></i></div><b>{_percent(value)}</b></li>'
    )


def _score(lesson: Lesson) -> str:
    if lesson.accuracy is None:
        return f'<div class="hs-score"><p class="hs-hint">{_NO_ACCURACY_YET}</p></div>'
    return f'<div class="hs-score">{_figures(lesson.accuracy)}{_interval(lesson.accuracy)}</div>'


def _figures(score: Score) -> str:
    right = round(score.value * score.n)
    return (
        f"<p><strong data-accuracy>{_percent(score.value)}</strong>"
        f"<span>{right} of {score.n} right, each predicted by a model of the others<br>"
        f"95&#8239;% interval {100 * score.low:.0f} to {100 * score.high:.0f}&#8239;%</span></p>"
    )


def _interval(score: Score) -> str:
    left, width = 100 * score.low, 100 * (score.high - score.low)
    return (
        f'<div class="hs-interval" aria-hidden="true"><i style="left:{left:.1f}%;width:{width:.1f}%"></i>'
        f'<b style="left:{100 * score.value:.1f}%"></b></div>'
    )


def _card(name: str, examples: Sequence[Example], lesson: Lesson, *, chosen: bool) -> str:
    label = escape(name, quote=True)
    thumbs = "".join(_thumb(one, wrong=one.number in lesson.wrong) for one in examples)
    return (
        f'<section class="hs-class{" hs-chosen" if chosen else ""}" data-class="{label}"><header>'
        f'<button type="button" data-do="choose" data-what="{label}">{label}</button>'
        f"<span>{len(examples)}</span>"
        f'<button type="button" class="hs-cross" data-do="drop" data-what="{label}" '
        f'aria-label="remove class {label}">&times;</button></header>'
        f'<div class="hs-thumbs">{thumbs}</div></section>'
    )


def _thumb(example: Example, *, wrong: bool) -> str:
    label = escape(example.label, quote=True)
    marked = ' class="hs-wrong" title="classified wrongly when left out"' if wrong else ""
    return (
        f'<figure{marked}><img src="{example.address}" alt="{label}"><button type="button" '
        f'class="hs-cross" data-do="remove" data-what="{example.number}" '
        f'aria-label="remove this {label}">&times;</button></figure>'
    )
