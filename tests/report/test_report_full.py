"""A report with every section: a linear classifier on 600 of scikit-learn's digits."""

from __future__ import annotations

import base64
import html
import io
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from test_report import Reader

import headstart.workflows.study.contestants  # noqa: F401  registers how each strategy is shown
from headstart.errors import SettingError, ShapeError
from headstart.evaluation.records import (
    Calibration,
    ClassScore,
    Difference,
    Evaluation,
    ReliabilityBin,
    Score,
)
from headstart.records import Curve
from headstart.report import page, scatter
from headstart.report import svg as diagrams
from headstart.report.records import Comparison, Factor, Gallery, Report, ReportImage, Row, Scatter
from headstart.report.scales import Scale, round_scale

CLASSES = tuple(str(digit) for digit in range(10))


def wilson(k, n):
    """Wilson's interval."""
    p, z = k / n, 1.959964
    middle, half = p + z * z / 2 / n, z * (p * (1 - p) / n + (z / 2 / n) ** 2) ** 0.5
    whole = 1 + z * z / n
    return Score(p, max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole), n)


@cache
def digits():
    """Features, codes, probabilities, pictures of 600 digits, and the weights learnt from the others."""
    data = load_digits()
    x, y = data.data / 16 - 0.3, data.target
    fit, held = slice(0, 1197), slice(1197, 1797)
    targets = np.eye(10)[y[fit]]
    weights = np.linalg.solve(x[fit].T @ x[fit] + 2.0 * np.eye(64), x[fit].T @ (targets - 0.1))
    logits = 7.5 * (x[held] @ weights)
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    return x[held], y[held], probs / probs.sum(axis=1, keepdims=True), data.images[held], weights


def address(pixels):
    """A picture as a data address."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def heat_over(grey, share):
    """The picture, enlarged, with what spoke for the answer in red."""
    share = np.clip(share / share.max(), 0, None)
    share = np.asarray(Image.fromarray((255 * share).astype(np.uint8)).resize((96, 96), 2))[..., None] / 255
    base = np.asarray(Image.fromarray(grey).resize((96, 96), 0))[..., None] * np.ones(3)
    hot = np.concatenate([230 + 0 * share, 60 + 120 * share, 20 + 0 * share], axis=2)
    return address((base * (1 - 0.75 * share) + hot * 0.75 * share).astype(np.uint8))


def picture(i, heat=False, big=False):
    """An image of the held ones, with what was said of it."""
    x, y, probs, images, weights = digits()
    grey = (255 - images[i] * 15.9).astype(np.uint8)
    called, second = np.argsort(-probs[i])[:2]
    laid = heat_over(grey, (x[i] * weights[:, called]).reshape(8, 8)) if heat else ""
    shown = np.asarray(Image.fromarray(grey).resize((96, 96), 0)) if big else grey
    return ReportImage(
        f"digits/held/{i + 1197:04d}.png", address(shown), CLASSES[y[i]], CLASSES[called],
        float(probs[i, called]), CLASSES[second], float(probs[i, second]), laid,
    )  # fmt: skip


def calibration(title, power):
    """Ten bins of confidence."""
    _, y, probs, _, _ = digits()
    sharp = probs**power / (probs**power).sum(axis=1, keepdims=True)
    sure, right = sharp.max(axis=1), sharp.argmax(axis=1) == y
    bins, ece = [], 0.0
    for low in np.arange(10) / 10:
        here = (sure > low) & (sure <= low + 0.1)
        if here.any():
            score = wilson(int(right[here].sum()), int(here.sum()))
            bins.append(ReliabilityBin(float(low), float(low + 0.1), float(sure[here].mean()), score))
            ece += here.mean() * abs(score.value - sure[here].mean())
    brier = float(((sharp - np.eye(10)[y]) ** 2).sum(axis=1).mean())
    nll = float(-np.log(sharp[np.arange(len(y)), y]).mean())
    return Calibration(title, float(ece), brier, nll, len(y), tuple(bins))


def evaluation():
    """The held images by class."""
    _, y, probs, _, _ = digits()
    called = probs.argmax(axis=1)
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (y, called), 1)
    per_class = []
    for i, name in enumerate(CLASSES):
        hit, said, true = int(counts[i, i]), int(counts[:, i].sum()), int(counts[i].sum())
        f1 = wilson(2 * hit, said + true)
        per_class.append(ClassScore(name, wilson(hit, said), wilson(hit, true), replace(f1, n=true)))
    return Evaluation(
        "probe, all labels", CLASSES, wilson(int(np.trace(counts)), len(y)), 0.2871,
        tuple(tuple(map(int, row)) for row in counts), tuple(per_class),
    )  # fmt: skip


def atlas():
    """The held images on the first two directions that part the classes."""
    x, y, probs, _, _ = digits()
    means = np.stack([x[y == code].mean(axis=0) for code in range(10)])
    _, _, axes = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)
    flat = x @ axes[:2].T
    right = probs.argmax(axis=1) == y
    return Scatter(
        "Held digits, before the head", "Pixels on the two directions that part the classes most. "
        "Near on the map is near for the network; distances across it mean little.", CLASSES,
        tuple(map(float, flat[:, 0])), tuple(map(float, flat[:, 1])), tuple(map(int, y)),
        tuple(map(bool, right)),
    )  # fmt: skip


def factors():
    """Forty trials of a search."""
    rng = np.random.default_rng(7)
    rate, decay = 10 ** rng.uniform(-4, -0.5, 40), 10 ** rng.uniform(-6, -2, 40)
    width, head = rng.choice([64, 128, 256, 512], 40), rng.choice(["linear", "ridge", "MLP"], 40)
    score = 0.962 - 0.03 * (np.log10(rate) + 2.1) ** 2 + 0.01 * (head == "ridge") + 0.00002 * width
    score = np.clip(score + rng.normal(0, 0.006, 40), 0.5, 0.99)
    return tuple(
        Factor(name, share, tuple(values.tolist()), tuple(map(float, score)), log)
        for name, share, values, log in (
            ("head", 0.142, head, False),
            ("learning_rate", 0.718, rate, True),
            ("hidden_units", 0.093, width, False),
            ("weight_decay", 0.047, decay, True),
        )
    )


def rows():
    """One budget: the probe and its controls."""
    right = {"probe": 571, "finetune": 574, "raw pixels": 559, "scratch": 553, "random frozen": 531}
    alone = {name: Row(name, None, wilson(k, 600), 1, 0.0, 0.1 * k) for name, k in right.items()}
    alone["scratch"] = replace(alone["scratch"], draws=5, spread=0.006)
    return (*alone.values(), Row("majority", None, wilson(61, 600), 1, 0.0, 0.0))


def comparisons():
    """The probe against each control."""
    table = (
        ("finetune", -0.005, 0.011, 0.62, "cannot tell apart", 9423),
        ("raw pixels", 0.02, 0.018, 0.058, "cannot tell apart", 1140),
        ("scratch", 0.03, 0.017, 0.0021, "helps", 402),
        ("random frozen", 0.0667, 0.022, 1e-6, "helps", 120),
        ("majority", 0.85, 0.03, 1e-12, "helps", 12),
    )
    return tuple(
        Comparison("probe", name, None, Difference(gain, gain - half, gain + half, p, 600), p, word, n)
        for name, gain, half, p, word, n in table
    )


def galleries():
    """Mistakes with heat, and the least sure of the right ones without."""
    _, y, probs, _, _ = digits()
    sure, right = probs.max(axis=1), probs.argmax(axis=1) == y
    wrong = [int(i) for i in np.argsort(-sure) if not right[i]][:8]
    unsure = [int(i) for i in np.argsort(sure)][:10]
    return (
        Gallery("Sure, and wrong", "The mistakes it was surest of: look for labels that are wrong, and for "
                "pictures that nobody could read.", tuple(picture(i, heat=True, big=True) for i in wrong)),
        Gallery("Least sure", "Where more labels would teach it most.", tuple(picture(i) for i in unsure)),
    )  # fmt: skip


def curve():
    """Twenty epochs of training from scratch."""
    steps = np.arange(1, 21)
    train = 1.9 * np.exp(-steps / 4) + 0.06
    val = 1.9 * np.exp(-steps / 4.3) + 0.22 + 0.0007 * (steps - 12) ** 2
    best = float(steps[val.argmin()])
    lines = [tuple(map(float, line)) for line in (steps, train, val, 1 - 0.3 * train, 1 - 0.33 * val)]
    return Curve("scratch, all labels", "epoch", *lines, best_step=best)


@cache
def full_result():
    """Everything a report can show."""
    return Report(
        title="letters network to digits",
        summary="A network trained on 26 handwritten letters, frozen, under a ridge head for ten digits, "
        "against five controls on the same 600 images that nobody learnt from.",
        verdict="With all 1,197 labels, transfer helps by 3.0 points [+1.3, +4.7] over training from "
        "scratch. Whether it helps over the raw pixels cannot be told from 600 images: +2.0 points "
        "[+0.2, +3.8], which chance among so many comparisons can explain (Holm).",
        remarks=(
            "3 held images are near-duplicates of training images; without them no number changes by 0.1.",
        ),
        rows=rows(),
        comparisons=comparisons(),
        evaluations=(evaluation(),),
        curves=(curve(),),
        facts={
            "command": "headstart study letters.model digits -o runs/digits --seed 0",
            "data": "digits, sha256:8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4",
            "source_fingerprint": "fb1c3f0e2a7d",
            "seed": "0",
            "versions": "headstart 0.2.0, numpy 2.4.6, openvino 2026.4.1",
            "date": "2026-07-14",
        },
        sizes={"train": 1197, "test": 600, "classes": 10},
        examples=[
            (name, picture(int(np.flatnonzero(digits()[1] == i)[3])).address)
            for i, name in enumerate(CLASSES)
        ],
        protocol="600 of 1,797 images, a third of every class, were held back and answered once, at the end. "
        "Intervals of accuracies are Wilson's; differences are paired on the same images (exact McNemar), "
        "with Holm's correction over the 5 comparisons.",
        findings=(
            "3 pairs of near-duplicates lie across the split: digits/0113.png and digits/1302.png, "
            "for one, similarity 0.991",
            "All images are light ink on dark paper, 8 x 8 px; your photos may be neither.",
        ),
        calibrations=(calibration("Probe, as trained", 1.0), calibration("Probe, temperature 0.50", 2.0)),
        galleries=galleries(),
        scatters=(atlas(),),
        factors=factors(),
    )


@pytest.fixture(scope="module")
def result():
    return full_result()


@pytest.fixture(scope="module")
def text(result):
    return page.render(result)


def light(result, **changes):
    """A page without the training curves, which take the most time."""
    return page.render(replace(result, **{"curves": (), **changes}))


def section(text, name):
    """The part of a page with this id, up to the next section."""
    start = text.index(f'id="{name}"')
    return text[start : text.find("<section", start)]


def plain(text):
    """What a reader sees, in one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def test_the_page_is_well_formed_and_loads_nothing(text):
    read = Reader()
    read.feed(text)
    assert read.open == [] and read.unbalanced == []
    assert len(read.ids) == len(set(read.ids))
    assert {ref[1:] for ref in read.refs} <= set(read.ids)
    assert all(address.startswith("data:") for address in read.loads)
    assert "<script" not in text and "http" not in text.replace("http-equiv", "")


def test_the_page_is_light_and_the_same_every_time(result, text):
    assert page.render(result) == text
    assert len(text.encode()) < 250_000


def test_contents_name_what_is_there_in_its_order(text):
    listed = re.findall(r'<a href="#(\w+)">', text)
    assert listed == re.findall(r'<section[^>]* id="(\w+)"', text)
    assert len(listed) == 11


@pytest.mark.parametrize(
    ("name", "empty"),
    [
        ("chance", {"comparisons": ()}),
        ("remarks", {"remarks": ()}),
        ("findings", {"findings": ()}),
        ("training", {"curves": ()}),
        ("mistakes", {"evaluations": ()}),
        ("belief", {"calibrations": ()}),
        ("images", {"galleries": ()}),
        ("maps", {"scatters": ()}),
        ("search", {"factors": ()}),
    ],
)
def test_empty_sections_are_left_out(result, text, name, empty):
    assert f'<section id="{name}"' in text and f'href="#{name}"' in text
    without = page.render(replace(result, **empty))
    assert f'id="{name}"' not in without and f'href="#{name}"' not in without
    assert without.count("<h2>") == text.count("<h2>") - 1


def test_a_long_verdict_has_a_headline(result, text):
    first, rest = result.verdict.replace(", +", ",\N{NO-BREAK SPACE}+").split("scratch. ")
    assert f"<h1>{first}scratch.</h1>" in text
    assert f'<p class="further">{rest}</p>' in text
    assert result.verdict in text  # whole too, in the page's description
    assert '<header class="middling">' in text


@pytest.mark.parametrize(
    ("verdict", "first", "size"),
    [
        ("It helps by 9.4 points.", "It helps by 9.4 points.", "short"),
        ("On some, e.g. on 3-5, it helps.", "On some, e.g. on 3-5, it helps.", "short"),
        ("It helps! By 3 points at 5. labels.", "It helps!", "short"),
        ("It hurts: -3 points [-4.1, -2.0].", "It hurts: −3 points [−4.1,\N{NO-BREAK SPACE}−2.0].", "short"),
        (f"{'So it is, ' * 20}as we saw. Once more.", f"{'So it is, ' * 20}as we saw.", "long"),
    ],
)
def test_headlines_end_with_their_sentence(result, verdict, first, size):
    text = light(result, verdict=verdict)
    assert f"<h1>{first}</h1>" in text and f'<header class="{size}">' in text


def test_a_verdict_of_three_sentences_keeps_them_all(result):
    text = light(result, verdict="It helps. By much. In all draws.")
    assert '<h1>It helps.</h1>\n<p class="further">By much. In all draws.</p>' in text


def test_one_budget_is_a_table_of_bars_on_one_scale(result, text):
    here = section(text, "accuracy")
    assert len(re.findall(r'<i class="bar"', here)) == len(result.rows) - 1
    assert here.count('<i class="before">') == 1  # the majority is far off the scale
    assert here.count('<i class="band"') == len(result.rows)
    dots = [float(left) for left in re.findall(r'<i class="dot" style="left:([\d.]+)%', here)]
    values = [row.accuracy.value for row in result.rows[:-1]]
    slopes = np.diff(dots) / np.diff(values)
    assert np.allclose(slopes, slopes[0], rtol=0.05)
    ticks = dict(re.findall(r'<i class="origin" style="left:([\d.]+)%">(\d+)</i>', here))
    (place, tick) = next(iter(ticks.items()))
    assert float(place) + slopes[0] * (values[0] - int(tick) / 100) == pytest.approx(dots[0], abs=0.2)
    for row in result.rows:
        assert f"{100 * row.accuracy.low:.1f}–{100 * row.accuracy.high:.1f}" in here
    assert "sd 0.6, 5 rounds" in here


def test_the_protocol_is_by_the_table_or_alone(result, text):
    assert result.protocol.split("'")[0] in html.unescape(section(text, "accuracy"))
    bare = light(result, rows=())
    assert plain(bare).count("600 of 1,797 images, a third") == 1
    assert "How it was evaluated" not in light(result, protocol="")


def test_undecided_comparisons_say_how_many_images_would_settle_them(result, text):
    here = plain(section(text, "chance"))
    assert "images needed" in here and "≈ 9,500" in here and "≈ 1,200" in here
    assert "≈ 410" not in here and "402" not in here  # settled already
    none = tuple(replace(one, n_to_settle=None) for one in result.comparisons)
    assert "settle" not in section(light(result, comparisons=none), "chance")
    settled = tuple(one for one in result.comparisons if one.verdict == "helps")
    assert "settle" not in section(light(result, comparisons=settled), "chance")


def test_calibration_has_its_numbers_and_bins(result, text):
    here = section(text, "belief")
    for one in result.calibrations:
        for value in (f"{100 * one.ece:.1f}", f"{one.brier:.3f}", f"{one.nll:.3f}", f"{one.n}", one.title):
            assert f">{value}<" in here
    n_bins = sum(len(one.bins) for one in result.calibrations)
    off = [
        not bin.accuracy.low <= bin.confidence <= bin.accuracy.high
        for one in result.calibrations
        for bin in one.bins
    ]
    assert here.count('class="dot') == here.count('class="bar"') == here.count('class="count"') == n_bins
    assert here.count('class="dot off"') == sum(off) and 0 < sum(off) < n_bins


def test_a_dot_on_the_diagonal_is_drawn_on_it():
    bins = tuple(ReliabilityBin(v - 0.05, v + 0.05, v, Score(v, v - 0.1, v, 9)) for v in (0.25, 0.55, 0.85))
    drawn = diagrams.reliability_diagram(Calibration("t", 0, 0, 0, 27, bins))
    x0, y0, x1, y1 = map(float, re.findall(r'diagonal" d="M(\S+) (\S+)L(\S+) (\S+)"', drawn)[0])
    for at, up in re.findall(r'class="dot" cx="(\S+)" cy="(\S+)"', drawn):
        assert (float(at) - x0) / (x1 - x0) == pytest.approx((float(up) - y0) / (y1 - y0), abs=0.001)


def test_images_have_prediction_truth_and_probability(result, text):
    here = section(text, "images")
    cards = re.findall(r"<li class=\"(right|wrong)\">(.*?)</li>", here, flags=re.S)
    pictures = [picture for gallery in result.galleries for picture in gallery.images]
    assert len(cards) == len(pictures)
    for (mark, card), one in zip(cards, pictures, strict=True):
        assert mark == ("right" if one.called == one.truth else "wrong")
        assert ("✗" in card) == (mark == "wrong") and ("✓" in card) == (mark == "right")
        assert plain(card) == (
            f"{'✗' if mark == 'wrong' else '✓'} predicted {one.called} {100 * one.probability:.1f} % "
            f"truth {one.truth} next {one.second} {100 * one.second_probability:.1f} % {one.name}"
        )
        assert re.findall(r'src="([^"]*)"', card) == [one.address, *([one.heat] if one.heat else [])]
    assert here.count("Next to each image: its occlusion map") == 1  # said once, where there is heat
    assert here.index("Next to each image: its occlusion map") < here.index(result.galleries[1].title)


def test_an_image_of_unknown_class_is_neither_right_nor_wrong(result):
    one = replace(result.galleries[0].images[0], truth="", second="")
    text = light(result, galleries=(Gallery("New", "", (one,)),))
    assert plain(section(text, "images")).count("truth") == 0
    assert "✗" not in text and "✓" not in text and "next" not in plain(section(text, "images"))


def test_an_image_that_is_no_png_is_refused(result):
    good = result.galleries[0].images[0]
    for bad in (
        replace(good, address="http://example.org/a.png"),
        replace(good, heat="data:image/png;base64,!"),
    ):
        with pytest.raises(SettingError, match=r"image 'digits.* is .*, expected a PNG"):
            light(result, galleries=(Gallery("t", "", (bad,)),))


def test_a_map_has_every_point_once_and_a_ring_for_every_mistake(result, text):
    here = section(text, "maps")
    lines = re.findall(r'<polyline class="dots" points="([^"]*)" marker-start="url\(#([^)]*)\)', here)
    drawn = {name: len(points.split()) for points, name in lines}
    one = result.scatters[0]
    assert drawn == {
        **{f"m0-{code}": one.codes.count(code) for code in range(10)},
        "m0-ring": one.right.count(False),
    }
    assert f"classified wrongly {one.right.count(False)}" in plain(here)
    keys = re.findall(r'<path class="(k\d)" d="([^"]*)"', here)
    assert len(set(keys)) == 10


def test_no_two_of_seventy_classes_look_the_same():
    assert len({scatter.class_key(code) for code in range(70)}) == 70


def test_a_map_keeps_its_shape_and_its_up():
    square = Scatter("t", "", ("a",), (0.0, 2.0, 0.0), (0.0, 0.0, 1.0), (0, 0, 0), (True,) * 3)
    points = re.findall(r'points="([^"]*)"', scatter.scatter(square, "0"))[0].split()
    (x0, y0), (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in points)
    assert x1 - x0 == pytest.approx(2 * (y0 - y2)) and (y1, x2) == (y0, x0)


def test_a_map_of_very_many_points_says_that_it_draws_some():
    n = 20_000
    rng = np.random.default_rng(0)
    x, y = (tuple(map(float, rng.normal(size=n))) for _ in range(2))
    many = Scatter("all", "Far too many.", ("a", "b"), x, y, tuple(i % 2 for i in range(n)), (True,) * n)
    text = light(full_result(), scatters=(many,))
    assert "Far too many. 6,000 of 20,000 images are drawn." in text
    points = re.findall(r'points="([^"]*)"', section(text, "maps"))
    assert sum(counts := [len(one.split()) for one in points]) == 6000
    assert min(counts) > 2900  # though the classes take turns
    assert len(section(text, "maps")) < 90_000


def test_names_on_a_map_never_overlap():
    classes = tuple(f"class {i}" for i in range(12))
    x, y = (tuple(map(float, [*range(11), 90])) for _ in range(2))
    near = Scatter("t", "", classes, x, y, tuple(range(12)), (True,) * 12)
    heights = re.findall(r'class="class" x="\S+" y="(\S+)"', scatter.scatter(near, "0"))
    assert len(heights) == 12
    assert np.diff(sorted(map(float, heights))).min() > 16


def test_settings_are_in_order_of_importance(result, text):
    here = section(text, "search")
    assert re.findall(r"<dt>([^<]*)</dt>", here) == ["learning rate", "head", "hidden units", "weight decay"]
    widths = [float(width) for width in re.findall(r'<i style="width:([\d.]+)%', here)]
    assert widths[0] == 100 and widths[1] == pytest.approx(100 * 0.142 / 0.718, abs=0.1)
    assert here.count('class="strip"') == 4 and "10⁻³" in here
    assert all(f">{name}<" in here for name in ("linear", "ridge", "MLP"))
    for dots in re.findall(r'class="trials" d="([^"]*)"', here):
        assert dots.count("M") == 40


def test_the_highest_score_is_ringed_and_failed_trials_are_left_out():
    one = Factor("rate", 1.0, (0.01, 0.1, 1.0, 10.0), (0.5, 0.9, float("nan"), 0.7), log=True)
    drawn = diagrams.strip(one, Scale(0.5, 0.9))
    dots = re.findall(r"M(\S+) (\S+)h0", drawn)
    assert len(dots) == 3
    assert re.findall(r'class="ring" cx="(\S+)" cy="(\S+)"', drawn) == [dots[1]]
    x = [float(at) for at, _ in dots]
    assert (x[1] - x[0]) / (x[2] - x[0]) == pytest.approx(1 / 3, abs=0.01)


def test_settings_without_a_score_keep_their_bar(result):
    lost = Factor("lost", float("nan"), (1.0,), (float("nan"),))
    here = section(light(result, factors=(lost, *result.factors)), "search")
    assert re.findall(r"<dt>([^<]*)</dt>", here)[-1] == "lost"
    assert here.count('class="strip"') == 4 and "nan" not in here


def test_everything_that_a_user_named_is_escaped(result):
    evil = '<b>$x$ & "o"</b>'
    one = result.galleries[0].images[0]
    bad = replace(
        result,
        protocol=evil,
        findings=(evil,),
        calibrations=(replace(result.calibrations[0], title=evil),),
        galleries=(Gallery(evil, evil, (replace(one, name=evil, truth=evil, called=evil, second=evil),)),),
        scatters=(replace(result.scatters[0], title=evil, caption=evil, classes=(evil, *CLASSES[1:])),),
        factors=(Factor(evil, 0.5, (evil, "a"), (0.5, 0.6)),),
    )
    text = page.render(bad)
    assert "<b>$x" not in text and '"o"' not in text
    assert text.count("&lt;b&gt;$x$ &amp;") > 15


@pytest.mark.parametrize(
    ("draw", "error", "word"),
    [
        (lambda: diagrams.reliability_diagram(Calibration("t", 0, 0, 0, 0, ())), SettingError, "has no bins"),
        (lambda: scatter.scatter(Scatter("t", "", ("a",), (), (), (), ()), "0"), SettingError, "no points"),
        (
            lambda: scatter.scatter(Scatter("t", "", ("a",), (0.0,), (), (0,), (True,)), "0"),
            ShapeError,
            "1 x, 0 y",
        ),
        (
            lambda: scatter.scatter(Scatter("t", "", ("a",), (0.0,), (0.0,), (1,), (True,)), "0"),
            SettingError,
            "code is 1",
        ),
        (
            lambda: diagrams.strip(Factor("f", 1, (1.0,), ()), Scale(0, 1)),
            ShapeError,
            "1 values and 0 scores",
        ),
        (
            lambda: diagrams.strip(Factor("f", 1, (1.0,), (float("nan"),)), Scale(0, 1)),
            SettingError,
            "no score",
        ),
    ],
)
def test_diagrams_refuse_invalid_input(draw, error, word):
    with pytest.raises(error, match=word):
        draw()


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([0.72, 0.964], 0.7, 1.0),
        ([0.981, 0.9964], 0.98, 1.0),
        ([-3.2, 41.0], -20.0, 60.0),
        ([3.0], 2.9, 3.1),
        ([0.0], -0.5, 0.5),
        ([float("nan")], 0.0, 1.0),
    ],
)
def test_scales_end_at_round_values(values, low, high):
    scale = round_scale(values)
    assert (scale.low, scale.high) == (low, high)
    assert 2 <= len(scale.ticks(6)) <= 6
