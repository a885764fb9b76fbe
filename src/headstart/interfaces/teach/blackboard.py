"""HTML of the teaching page: the lesson, a prediction, a notice; apart from gradio, and computing nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from headstart.evaluation.records import Score
from headstart.interfaces.teach.classroom import Classroom
from headstart.interfaces.teach.lesson import Answer, Example, Lesson
from headstart.records import NONE_OF_THESE

__all__ = ["answer_html", "answers_html", "lesson_html", "notice_html", "sentence"]

_STEPS = (
    "Name your classes: two or more.",
    "Show a few images of each: draw them, drop files, or use the camera.",
    "Try a new image. Then save the model.",
)
_WAIT = "Two classes with two examples each, and the accuracy stands here."
_UNASKED = "Draw, or show an image: as soon as two classes are taught, the answer comes by itself."


def sentence(error: Exception) -> str:
    """An error of ours as a sentence.

    >>> sentence(ValueError("class 'x' is unknown, expected another"))
    "Class 'x' is unknown, expected another."
    """
    said = str(error).splitlines()[0]
    return f"{said[:1].upper()}{said[1:]}."


def notice_html(said: str, *, bad: bool = False) -> str:
    """A notice of one line; empty for an empty message."""
    kind = "hs-notice hs-bad" if bad else "hs-notice"
    return f'<p class="{kind}" role="status">{escape(said)}</p>' if said else ""


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


def answer_html(answer: Answer | None, address: str = "") -> str:
    """The prediction for one image: class, a bar for every class, the nearest example."""
    if answer is None:
        return f'<div class="hs-answer"><p class="hs-hint">{_UNASKED}</p></div>'
    none = answer.called == NONE_OF_THESE
    bars = "".join(
        _bar(name, value, best=not none and name == answer.called) for name, value in _sorted(answer)
    )
    why = _novelty(answer.novelty)
    picture = f'<img src="{address}" alt="the image asked about">' if address else ""
    return (
        f'<div class="hs-answer{" hs-none" if none else ""}"><div class="hs-called">{picture}'
        f"<div><strong data-called>{escape(answer.called)}</strong><span>{why}</span></div></div>"
        f'<ol class="hs-bars">{bars}</ol>'
        f'<div class="hs-nearest"><img src="{answer.nearest.address}" alt="nearest example">'
        f"<span>Nearest example: {escape(answer.nearest.label)}, similarity {answer.similarity:.2f}</span>"
        "</div></div>"
    )


def answers_html(answers: Sequence[tuple[str, str, Answer | None]]) -> str:
    """The predictions for several images, one line each."""
    if all(answer is None for _, _, answer in answers):
        return answer_html(None)
    lines = "".join(
        f'<li><img src="{address}" alt=""><span>{escape(name)}</span>'
        f"<b data-called>{escape(answer.called)}</b><i>{_surety(answer)}</i></li>"
        for name, address, answer in answers
        if answer is not None
    )
    return f'<div class="hs-answer"><ol class="hs-many">{lines}</ol></div>'


def _percent(share: float) -> str:
    return f"{100 * share:.0f}&#8239;%"


def _surety(answer: Answer) -> str:
    return "" if answer.called == NONE_OF_THESE else _percent(max(one for _, one in answer.probabilities))


def _novelty(novelty: float | None) -> str:
    if novelty is None:
        return "Too few examples to tell what is none of these."
    if novelty > 1:
        return f"Unlike everything taught: {novelty:.2f} times the limit."
    return f"Like what was taught: {novelty:.2f} of the limit."


def _sorted(answer: Answer) -> list[tuple[str, float]]:
    return sorted(answer.probabilities, key=lambda one: -one[1])


def _bar(name: str, value: float, *, best: bool) -> str:
    return (
        f"<li{' class=hs-best' if best else ''}><span>{escape(name)}</span>"
        f'<div><i style="width:{100 * value:.1f}%"></i></div><b>{_percent(value)}</b></li>'
    )


def _score(lesson: Lesson) -> str:
    if lesson.accuracy is None:
        return f'<div class="hs-score"><p class="hs-hint">{_WAIT}</p></div>'
    return f'<div class="hs-score">{_figures(lesson.accuracy)}{_interval(lesson.accuracy)}</div>'


def _figures(score: Score) -> str:
    right = round(score.value * score.n)
    return (
        f"<p><strong data-accuracy>{_percent(score.value)}</strong>"
        f"<span>{right} of {score.n} right, each judged by the others alone<br>"
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
    marked = ' class="hs-wrong" title="the others would call it something else"' if wrong else ""
    return (
        f'<figure{marked}><img src="{example.address}" alt="{label}"><button type="button" '
        f'class="hs-cross" data-do="remove" data-what="{example.number}" '
        f'aria-label="remove this {label}">&times;</button></figure>'
    )
