"""The report: complete, self-contained, escaped, and the same bytes every time."""

from __future__ import annotations

import base64
import html
import re
import struct
import zlib
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest

from headstart.errors import SettingError
from headstart.evaluation.records import ClassScore, Difference, Evaluation, Score
from headstart.records import Curve
from headstart.report import figures, page
from headstart.report import svg as diagrams
from headstart.report.records import Comparison, Figure, Report, Row

BUDGETS = (1, 5, 10, 50, None)
ACCURACIES = {
    "probe": (0.612, 0.883, 0.927, 0.968, 0.9871),
    "scratch": (0.402, 0.671, 0.792, 0.941, 0.9912),
    "random frozen": (0.371, 0.622, 0.741, 0.889, 0.953),
    "raw pixels": (0.433, 0.701, 0.803, 0.921, 0.9713),
    "majority": (0.1135, 0.1135, 0.1135, 0.1135, 0.1135),
}


def _score(value, n=2000):
    half = 1.96 * (max(value * (1 - value), 0.0005) / n) ** 0.5
    return Score(value, max(value - half, 0.0), min(value + half, 1.0), n)


def _png(grey):
    height, width = grey.shape
    lines = b"".join(b"\0" + bytes(line) for line in grey.astype(np.uint8))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )
    return "data:image/png;base64," + base64.b64encode(data).decode()


def sample_evaluation(classes, n_each, title, seed=0):
    """An evaluation that looks like a good one."""
    rng, k = np.random.default_rng(seed), len(classes)
    cells = [rng.multinomial(n_each, (np.full(k, 0.05 / k) + 0.95 * np.eye(k)[i])) for i in range(k)]
    counts = np.array(cells)
    per_class = tuple(
        ClassScore(
            name,
            _score(counts[i, i] / counts[:, i].sum(), int(counts[:, i].sum())),
            _score(counts[i, i] / n_each, n_each),
            _score(2 * counts[i, i] / (n_each + counts[:, i].sum()), n_each),
        )
        for i, name in enumerate(classes)
    )
    accuracy = _score(np.trace(counts) / counts.sum(), int(counts.sum()))
    confusion = tuple(tuple(int(cell) for cell in row) for row in counts)
    return Evaluation(title, tuple(classes), accuracy, 0.0873, confusion, per_class)


def sample_curve(title, n=14):
    """A training history that overfits at the end."""
    steps = np.arange(1, n + 1)
    train, val = (
        1.9 * np.exp(-steps / 3) + 0.05,
        1.9 * np.exp(-steps / 3.2) + 0.24 + 0.0009 * (steps - 8) ** 2,
    )
    curves = [tuple(map(float, line)) for line in (train, val, 1 - 0.3 * train, 1 - 0.32 * val)]
    return Curve(title, "epoch", tuple(map(float, steps)), *curves, best_step=float(steps[val.argmin()]))


def sample_result():
    """A study as large as they come."""
    rows = tuple(
        Row(
            name,
            budget,
            _score(value),
            1 if budget is None else 5,
            0 if budget is None else 0.03 / (i + 1),
            0.4 + i,
        )
        for name, values in ACCURACIES.items()
        for i, (budget, value) in enumerate(zip(BUDGETS, values, strict=True))
    )
    comparisons = []
    for name, values in list(ACCURACIES.items())[1:]:
        for i, (budget, value) in enumerate(zip(BUDGETS, values, strict=True)):
            gain, half = ACCURACIES["probe"][i] - value, 0.04 / (i + 1) ** 0.7 if i < 4 else 0.003
            word = "helps" if gain > half else "hurts" if gain < 0 else "cannot tell apart"
            p_value = 0.0004 if word == "helps" else 0.031 if word == "hurts" else 0.21
            difference = Difference(gain, gain - half, min(gain + half, 1.0), p_value, 2000)
            comparisons.append(Comparison("probe", name, budget, difference, p_value, word))
    rng = np.random.default_rng(0)
    tiny = np.clip(rng.normal(40, 60, (28, 28)), 0, 255)
    digits = [str(digit) for digit in range(10)]
    return Report(
        title="odd digits to even digits, MNIST",
        summary="A small convolutional network trained on odd digits, frozen, under a new head for even ones "
        "against four controls on the same 2,000 test images.",
        verdict="Transfer helps by 9.4 points [7.9, 10.9] at 10 labels per class, "
        "and hurts by 0.4 once all labels are used.",
        remarks=(
            "3 test images are near-duplicates of training images; without them no number changes by 0.1.",
            "With 1 label per class the draw of the labels moves accuracy more than any strategy does.",
        ),
        rows=rows,
        comparisons=tuple(comparisons),
        evaluations=(
            sample_evaluation(digits, 200, "probe on all labels, ten digits"),
            sample_evaluation(["even", "odd"], 1000, "collapse, odd or even"),
        ),
        curves=(sample_curve("the source, on odd digits"), sample_curve("scratch, all labels")),
        facts={
            "command": "headstart study odd.model mnist:even --budgets 1,5,10,50,all --draws 5 --seed 0",
            "data": "mnist:even, sha256:8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4",
            "seed": "0",
            "versions": "headstart 0.1.0, numpy 2.4.6, openvino 2026.4.1",
            "seconds": "41.2",
        },
        sizes={"train": 29492, "test": 2000, "classes": 5},
        examples=[(f"digit {i}", _png(tiny)) for i in range(5)],
    )


@pytest.fixture(scope="module")
def result():
    return sample_result()


@pytest.fixture(scope="module")
def text(result):
    return page.render(result)


class Reader(HTMLParser):
    """Collects tags, ids and what the page would load."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.loads, self.refs, self.unbalanced = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "srcset", "href", "data", "action", "poster"):
                (self.refs if value.startswith("#") else self.loads).append(value)
            self.refs += re.findall(r"url\((#[^)]*)\)", value or "")
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in ("meta", "link", "img", "br"):
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)


@pytest.fixture(scope="module")
def read(text):
    reader = Reader()
    reader.feed(text)
    return reader


def test_the_page_loads_nothing(text, read):
    assert all(address.startswith("data:") for address in read.loads)
    assert "http://" not in text
    assert "https://" not in text
    assert "<script" not in text
    assert "@import" not in text
    assert not re.findall(r"url\((?!#)", text)


def test_the_page_is_well_formed(read):
    assert read.open == []
    assert read.unbalanced == []
    assert len(read.ids) == len(set(read.ids))
    assert {ref[1:] for ref in read.refs} <= set(read.ids)


def test_the_page_is_small(text):
    assert len(text.encode()) < 600_000


def test_the_verdict_comes_first_and_large(result, text):
    together = html.escape(result.verdict).replace("[7.9, 10.9]", "[7.9,\N{NO-BREAK SPACE}10.9]")
    assert f"<h1>{together}</h1>" in text
    assert text.index("<h1>") < text.index("<table")


def test_every_number_of_the_table_is_there(result, text):
    table = text[text.index("<tbody>") : text.index("</table>")]
    cells = re.findall(r"<td(?: class=\"best\")?>.*?</td>", table)
    assert len(cells) == len(result.rows)
    for row, cell in zip(result.rows, cells, strict=True):
        assert f">{100 * row.accuracy.value:.1f}<" in cell
        assert f">{100 * row.accuracy.low:.1f}–{100 * row.accuracy.high:.1f}<" in cell
        assert (f"sd {100 * row.spread:.1f}, {row.draws} rounds" in cell) == (row.draws > 1)


def test_the_best_of_a_column_is_marked_by_more_than_colour(text):
    table = text[text.index('<table class="results"') : text.index("</table>")]
    best = re.findall(r"<td class=\"best\">.*?</td>", table)
    assert len(best) == len(BUDGETS)
    assert all("●" in cell for cell in best)
    assert [re.findall(r"<span>([^<]*)", cell)[0] for cell in best] == [
        "61.2",
        "88.3",
        "92.7",
        "96.8",
        "99.1",
    ]


def test_every_comparison_is_there(result, text):
    table = text[text.index('<table class="comparisons"') :]
    for comparison in result.comparisons:
        assert f"{100 * comparison.difference.value:+.1f}".replace("-", "−") in table
    assert table.count("helps") >= sum(c.verdict == "helps" for c in result.comparisons)
    assert "&lt; 0.001" in table
    assert "0.031" in table


def test_every_count_remark_and_fact_is_there(result, text):
    for evaluation in result.evaluations:
        assert html.escape(evaluation.title) in text
        for row in evaluation.confusion:
            for cell in row:
                assert cell == 0 or f">{cell:,}</td>" in text
    for words in (*result.remarks, *result.facts, *result.facts.values()):
        assert html.escape(words) in text
    assert [text.count(uri) for _, uri in result.examples] == [5] * 5  # five times the same picture


def test_rendering_twice_gives_the_same_bytes(result, text):
    assert page.render(sample_result()) == text


def test_names_are_escaped():
    evil = '<b>$x_1$ & "o"</b>'
    row = Row(evil, 5, _score(0.5), 1, 0.0, 1.0)
    evaluation = replace(sample_evaluation(["a", "b"], 9, evil), classes=(evil, "b"))
    rows = (row, replace(row, labels_per_class=1))
    curve = replace(sample_curve(evil), step_name=evil)
    comparison = Comparison(evil, evil, 5, Difference(0, -0.1, 0.1, 1, 9), 1.0, "cannot tell apart")
    text = page.render(
        Report(
            evil, evil, evil, (evil,), rows, (comparison,), (evaluation,), (curve,), {evil: evil}, {evil: 3},
            [(evil, _png(np.zeros((4, 4))))],
        )
    )  # fmt: skip
    assert "<b>$x" not in text
    assert text.count("&lt;b&gt;$x_1$ &amp;") > 10


def test_an_example_that_is_no_png_is_refused(result):
    for address in ("http://example.org/a.png", "data:image/svg+xml;base64,AAAA", "data:image/png;base64,!"):
        with pytest.raises(SettingError, match=r"example 'x' is .*, expected a PNG"):
            page.render(replace(result, examples=[("x", address)]))


def test_a_further_figure_has_its_section_before_the_training(result):
    drawing = diagrams.rate_test((1e-3, 1e-2, 1e-1), (2.0, 1.0, 3.0), 1e-2)
    further = (Figure("How <it> was found", "The rate rose & rose.", drawing), Figure("Another", "", drawing))
    text = page.render(replace(result, figures=further))
    assert text.count(drawing) == 2 and "<h2>How &lt;it&gt; was found</h2>" in text
    assert "The rate rose &amp; rose." in text and '<a href="#figures">' in text
    assert text.count('<section id="figures">') == 1
    assert text.index('<section id="figures">') < text.index('<section id="training">')
    assert 'id="figures"' not in page.render(result)


@pytest.mark.parametrize(
    "svg",
    [
        "",
        "<p>rates</p>",
        "<svg></svg><p>",
        "<svg><script>x</script></svg>",
        '<svg><image href="a.png"/></svg>',
        '<svg onload="x"></svg>',
        "<svg><style>p { color: red }</style></svg>",
    ],
)
def test_a_figure_that_is_no_plain_svg_is_refused(result, svg):
    with pytest.raises(SettingError, match=r"figure 'rates' is .* expected one <svg> element"):
        page.render(replace(result, figures=(Figure("rates", "", svg),)))


@pytest.mark.parametrize("kind", ["study", "transfer", "training"])
def test_the_page_names_its_subject(result, kind):
    assert f"<b>Headstart {kind}</b>" in page.render(replace(result, kind=kind))


def test_a_bare_result_still_makes_a_page():
    text = page.render(Report("t", "s", "Nothing to compare.", (), (), (), (), (), {}, {}))
    assert "Nothing to compare." in text
    assert "<table" not in text


def test_a_study_with_one_budget_has_bars_and_no_curve(result):
    rows = tuple(row for row in result.rows if row.labels_per_class is None)
    text = page.render(replace(result, rows=rows, comparisons=()))
    assert '<table class="results one">' in text
    assert "Accuracy against labels" not in text


def test_missing_cells_and_measures_are_dashes_not_zeros(result):
    nan = float("nan")
    curve = replace(
        result.curves[0], val_loss=(nan,) * 14, val_accuracy=(nan,) * 14, train_accuracy=(nan,) * 14
    )
    text = page.render(replace(result, rows=result.rows[:-1], curves=(curve,)))
    assert '<td class="none">–</td>' in text
    assert text.count("<figcaption>") == 1
    assert ">nan" not in text


def test_all_labels_are_at_their_number_or_after_a_gap(result):
    known = figures.accuracy_by_labels(result.rows, {"train": 30000, "classes": 10})
    assert "all (3,000)" in known
    assert ">all<" in figures.accuracy_by_labels(result.rows, {})
    assert ">all<" in figures.accuracy_by_labels(result.rows, {"train": 400, "classes": 10})


def test_figures_take_their_colours_from_the_page(result):
    drawn = figures.accuracy_by_labels(result.rows, {}) + figures.learning_curve(result.curves[0], "loss")
    for style in re.findall(r'style="[^"]*"', drawn):
        bare = re.sub(r"var\([^)]*\)", "", style)
        assert not re.search(r"#[0-9a-f]{6}|font-family", bare), style
    for name in ACCURACIES:
        assert f"var({figures.style_of(name, ACCURACIES).variable}" in drawn


def test_figures_leave_matplotlib_unchanged(result):
    before = dict(matplotlib.rcParams)
    figures.learning_curve(result.curves[0], "accuracy")
    assert dict(matplotlib.rcParams) == before


def test_labels_at_line_ends_never_overlap():
    placed = figures._spread_apart([0.0, 1.0, 2.0, 390.0, 391.0, 392.0], 392.0)
    assert np.diff(placed).min() >= 16 - 1e-9
    assert placed[-1] <= 392.0
    assert figures._spread_apart([10.0, 100.0], 392.0) == [10.0, 100.0]


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda r: figures.accuracy_by_labels([], {}), "nothing to draw"),
        (lambda r: figures.accuracy_by_labels(r.rows, {}, 100), "width_px is 100"),
        (lambda r: figures.learning_curve(r.curves[0], "f1"), "quantity is 'f1'"),
    ],
)
def test_figures_refuse_invalid_input(result, call, word):
    with pytest.raises(SettingError, match=word):
        call(result)
