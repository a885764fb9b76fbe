"""One contract over every head, and each head against the mathematics it claims to be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.splits import nested_subsets
from headstart.data.stores import ArrayImages
from headstart.errors import DataError, NotFittedError, SettingError, ShapeError, UnknownClassError
from headstart.graph.build import GraphBuilder
from headstart.graph.layers import normalise
from headstart.graph.pooling import pool
from headstart.graph.run import RUNTIMES, compile_graph
from headstart.heads import linear
from headstart.heads.base import Head, fit_temperature, log_loss, softmax
from headstart.heads.distances import NeighboursHead, PrototypesHead
from headstart.heads.kernel import KernelHead
from headstart.heads.least_squares import KernelLeastSquares, LeastSquares
from headstart.heads.linear import LinearHead
from headstart.heads.mlp import MLPHead
from headstart.heads.registry import CLOSED_FORM, HEADS, make_head
from headstart.heads.ridge import RidgeHead
from headstart.heads.scaling import Standardiser
from headstart.heads.training import Training, class_weights, one_hot
from headstart.records import Array, Images, InputSpec

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GREY = InputSpec(8, 8, 1)
Labels = NDArray[np.str_]


@dataclass(frozen=True)
class Task:
    """Ten images of each digit to learn from, others to be judged by."""

    images: Images
    features: Array
    labels: Labels
    test_images: Images
    test_features: Array
    test_labels: Labels


def widening() -> Array:
    """A fixed map to 300 features: more than there are images."""
    return np.random.default_rng(1).normal(size=(64, 300)).astype(np.float32)


def features_of(images: Images, wide: bool) -> Array:
    rows = images.reshape(len(images), -1).astype(np.float32) / 255
    return np.maximum(rows @ widening(), 0.0) if wide else rows


@pytest.fixture(scope="session", params=["narrow", "wide"])
def task(request: pytest.FixtureRequest, digits: Dataset) -> Task:
    assert isinstance(digits.images, ArrayImages)
    pixels, codes, wide = digits.images.pixels, digits.codes(), request.param == "wide"
    learn = np.concatenate([np.flatnonzero(codes[:900] == code)[:10] for code in range(10)])
    labels = np.array(NAMES)[codes]
    return Task(
        pixels[learn],
        features_of(pixels[learn], wide),
        labels[learn],
        pixels[900:1300],
        features_of(pixels[900:1300], wide),
        labels[900:1300],
    )


@pytest.fixture(params=HEADS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


FITTED: dict[tuple[str, int], Head] = {}


@pytest.fixture
def fitted(name: str, task: Task) -> Head:
    key = (name, task.features.shape[1])
    if key not in FITTED:
        FITTED[key] = make_head(name).fit(task.features, task.labels, classes=NAMES)
    return FITTED[key]


def graph_of(head: Head) -> onnx.ModelProto:
    """From uint8 digits, through the features of the task, to the head's probabilities."""
    builder = GraphBuilder(input_spec=GREY)
    rows = pool(builder, normalise(builder, GREY), (1, 8, 8), "flat")
    if head.n_features == 300:
        rows = builder.add("Relu", builder.add("MatMul", rows, builder.constant("widening", widening())))
    return builder.model([head.append(builder, rows)])


def constant_task(n_per_class: int = 4) -> tuple[Array, Labels]:
    labels = np.repeat(NAMES[:3], n_per_class)
    return np.ones((len(labels), 64), np.float32), labels


def test_registry_knows_every_head_by_its_name(name: str) -> None:
    assert make_head(name).name == name and make_head(name) is not make_head(name)
    with pytest.raises(
        SettingError, match=rf"head '{name}s' is unknown, expected one of .*; nearest are .*{name}"
    ):
        make_head(name + "s")


def test_probabilities_are_probabilities(fitted: Head, task: Task) -> None:
    probs = fitted.probabilities(task.test_features)
    assert probs.shape == (400, 10) and probs.dtype == np.float32 and probs.min() >= 0
    np.testing.assert_allclose(probs.sum(axis=1), 1.0, atol=1e-5)
    assert fitted.probabilities(task.test_features[:0]).shape == (0, 10)
    np.testing.assert_allclose(fitted.probabilities(task.test_features[7:8])[0], probs[7], atol=1e-5)


def test_far_better_than_chance(fitted: Head, task: Task) -> None:
    assert (fitted.predict(task.test_features) == task.test_labels).mean() > 0.65  # chance is 0.1


def test_probabilities_mean_something(fitted: Head, task: Task) -> None:
    codes = np.array([NAMES.index(label) for label in task.test_labels])
    probs = fitted.probabilities(task.test_features)
    assert -np.log(probs[np.arange(400), codes]).mean() < 1.3  # knowing nothing costs 2.3


def test_answers_are_names(fitted: Head, task: Task) -> None:
    answers = fitted.predict(task.test_features)
    assert fitted.classes_ == NAMES and answers.dtype.kind == "U" and set(answers) <= set(NAMES)
    wanted = np.array(NAMES)[fitted.probabilities(task.test_features).argmax(axis=1)]
    assert answers.tolist() == wanted.tolist()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_graph_gives_the_same_probabilities(fitted: Head, task: Task, runtime: str) -> None:
    ready = compile_graph(graph_of(fitted), runtime=runtime, precision="fp32", batch_size=64)
    got = ready.run([task.test_images], 400)
    wanted = fitted.probabilities(task.test_features)
    worst = np.abs(got - wanted).max(axis=1)
    if fitted.name == "neighbours":  # two neighbours as near as rounding tells may change places
        assert (worst <= 1e-4).mean() >= 0.99
    else:
        assert worst.max() <= 1e-4


def test_the_graph_is_standard_onnx(fitted: Head) -> None:
    model = graph_of(fitted)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}


def test_same_seed_same_answer(name: str, fitted: Head, task: Task) -> None:
    np.random.seed(0)
    again = make_head(name).fit(task.features, task.labels, classes=NAMES)
    assert np.array_equal(again.probabilities(task.test_features), fitted.probabilities(task.test_features))
    assert again.chosen_ == fitted.chosen_


def test_fitting_again_forgets_the_first_time(name: str, fitted: Head, task: Task) -> None:
    head = make_head(name).fit(task.features[:40, :9], task.labels[:40])
    assert len(head.classes_) == 4 and head.n_features == 9
    head.fit(task.features, task.labels, classes=NAMES)
    assert np.array_equal(head.probabilities(task.test_features), fitted.probabilities(task.test_features))


def test_the_order_of_classes_is_the_caller_s(name: str, fitted: Head, task: Task) -> None:
    turned = make_head(name).fit(task.features, task.labels, classes=NAMES[::-1])
    assert turned.classes_ == NAMES[::-1]
    one, other = fitted.probabilities(task.test_features), turned.probabilities(task.test_features)[:, ::-1]
    same = (one.argmax(axis=1) == other.argmax(axis=1)).mean()  # columns of another order agree in a tenth
    if name in (
        "ridge",
        "kernel",
        "prototypes",
        "neighbours",
    ):  # nothing in them goes by the order of classes
        np.testing.assert_allclose(one, other, atol=5e-3)
    else:  # folds are dealt class by class; the first weights of a network are drawn output by output
        assert same > (0.7 if name == "mlp" else 0.9)
    plain = make_head("prototypes").fit(task.features, task.labels)
    assert plain.classes_ == tuple(sorted(NAMES))


def test_the_order_of_rows_does_not_matter_much(name: str, fitted: Head, task: Task) -> None:
    order = np.random.default_rng(5).permutation(100)
    mixed = make_head(name).fit(task.features[order], task.labels[order], classes=NAMES)
    same = mixed.predict(task.test_features) == fitted.predict(task.test_features)
    assert same.mean() > (0.7 if name == "mlp" else 0.9)


def test_constant_features_are_no_accident(name: str) -> None:
    """All that can be known is how many images each class has, which here is nothing."""
    rows, labels = constant_task()
    head = make_head(name).fit(rows, labels)
    probs = head.probabilities(rows[:2])
    assert np.isfinite(probs).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1.0, atol=1e-5)
    if name != "neighbours":  # which takes the first few of equals
        np.testing.assert_allclose(probs, 1 / 3, atol=0.05)


def test_dead_features_change_nothing(name: str, task: Task) -> None:
    rows = task.features.copy()
    rows[:, ::2] = 3.0
    head = make_head(name).fit(rows, task.labels, classes=NAMES)
    test = task.test_features.copy()
    test[:, ::2] = 3.0
    assert np.isfinite(head.probabilities(test)).all()
    assert (head.predict(test) == task.test_labels).mean() > 0.5


def test_one_image_per_class_is_enough(name: str, task: Task) -> None:
    rows, labels = task.features[::10], task.labels[::10]
    head = make_head(name).fit(rows, labels, classes=NAMES)
    assert head.predict(rows).tolist() == labels.tolist()
    assert (head.predict(task.test_features) == task.test_labels).mean() > 0.3
    ready = compile_graph(graph_of(head), runtime="onnxruntime")
    np.testing.assert_allclose(
        ready.run([task.test_images[:50]], 50), head.probabilities(task.test_features[:50]), atol=1e-4
    )


def test_two_images_are_enough(name: str, task: Task) -> None:
    rows, labels = task.features[[0, 99]], task.labels[[0, 99]]
    assert make_head(name).fit(rows, labels).predict(rows).tolist() == ["zero", "nine"]


def test_uneven_classes_are_learnt(name: str, task: Task) -> None:
    kept = np.r_[0, 10, 20:100]  # one zero, one one, ten of all others
    head = make_head(name).fit(task.features[kept], task.labels[kept], classes=NAMES)
    assert (head.predict(task.test_features) == task.test_labels).mean() > 0.6


def test_a_class_without_images_is_one_sentence(name: str, task: Task) -> None:
    with pytest.raises(
        UnknownClassError, match=r"class 'ten' has no image, expected at least 2 classes .*; add images"
    ):
        make_head(name).fit(task.features, task.labels, classes=(*NAMES, "ten"))
    with pytest.raises(UnknownClassError, match=r"classes are \['zero'\], expected at least 2 classes"):
        make_head(name).fit(task.features[:10], task.labels[:10])


def test_an_unknown_label_is_one_sentence(name: str, task: Task) -> None:
    with pytest.raises(UnknownClassError, match=r"label 'nine' is unknown, expected one of .*; nearest are"):
        make_head(name).fit(task.features, task.labels, classes=[*NAMES[:9], "nina"])


@pytest.mark.parametrize("shape", [(100,), (99, 64), (100, 8, 8), (0, 64)])
def test_features_must_match_labels(name: str, task: Task, shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ShapeError, match=r"features have shape \(.*\), expected \(100, n_features\) to match labels"
    ):
        make_head(name).fit(np.zeros(shape, np.float32), task.labels)


def test_features_must_be_as_wide_as_at_fit(fitted: Head) -> None:
    for shape in ((3, fitted.n_features + 1), (fitted.n_features,)):
        with pytest.raises(ShapeError, match=rf"expected \(n_images, {fitted.n_features}\) as at fit"):
            fitted.predict(np.zeros(shape, np.float32))


def test_a_head_must_be_fitted_first(name: str, task: Task) -> None:
    head = make_head(name)
    with pytest.raises(NotFittedError, match=rf"head '{name}' is not fitted, expected fit\(\) first"):
        head.predict(task.features)
    with pytest.raises(UnknownClassError):
        head.fit(task.features[:10], task.labels[:10])
    with pytest.raises(NotFittedError):  # a fit that failed is none
        head.predict(task.features)


def test_watching_changes_nothing(name: str, fitted: Head, task: Task) -> None:
    watch = (task.test_features, task.test_labels)
    watched = make_head(name).fit(task.features, task.labels, classes=NAMES, watch=watch)
    one, other = (head.probabilities(task.test_features) for head in (fitted, watched))
    if name == "linear":  # L-BFGS enlarges the last bit
        np.testing.assert_allclose(one, other, atol=3e-2)
    else:
        assert np.array_equal(one, other)
    assert fitted.curve_ is None
    if name in ("linear", "mlp"):
        curve = watched.curve_
        assert curve is not None and len(curve.steps) == len(curve.val_loss) == len(curve.train_loss) > 1
        assert curve.val_accuracy[-1] > 0.7 and curve.train_loss[-1] < curve.train_loss[0]
        assert np.isfinite([curve.val_loss, curve.train_loss, curve.val_accuracy, curve.train_accuracy]).all()
    else:
        assert watched.curve_ is None


def test_inputs_are_left_alone(name: str, task: Task) -> None:
    rows, labels = task.features.copy(), task.labels.copy()
    rows.flags.writeable = labels.flags.writeable = False
    head = make_head(name).fit(rows, labels, classes=NAMES)
    head.predict(rows)
    assert np.array_equal(rows, task.features)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: RidgeHead(()), r"strengths are \(\), expected at least one and all above 0"),
        (lambda: LinearHead((0.1, 0.0)), "strengths are .*expected at least one and all above 0"),
        (lambda: KernelHead((-1.0,)), r"widths are \(-1.0,\), n_landmarks 2000, expected widths above 0"),
        (lambda: KernelHead(n_landmarks=1), "expected widths above 0 and 2 landmarks"),
        (
            lambda: NeighboursHead((0,)),
            r"candidates are \(0,\), expected numbers of neighbours of at least 1",
        ),
        (lambda: MLPHead(units=0), "units 0, .*expected counts of at least 1"),
        (lambda: MLPHead(dropout=1.0), r"dropout 1.0, .*dropout in \[0, 1\)"),
    ],
)
def test_settings_without_meaning_are_one_sentence(make: object, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        make()  # type: ignore[operator]


# ---- the arithmetic they share


def test_standardiser_makes_rows_of_length_one(task: Task) -> None:
    standardise = Standardiser.of(task.features)
    rows = standardise(task.features)
    np.testing.assert_allclose(rows.mean(axis=0), 0.0, atol=1e-6)
    assert 0.6 < (rows**2).sum(axis=1).mean() < 1.0
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(task.features.shape[1], 4)), rng.normal(size=4)
    folded, moved = standardise.fold(weight, bias)
    np.testing.assert_allclose(task.features @ folded + moved, rows @ weight + bias, atol=1e-4)


def test_softmax_and_loss_do_not_overflow() -> None:
    logits = np.array([[1e4, 0.0], [-1e4, 0.0]])
    assert softmax(logits).tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert log_loss(logits, np.array([0, 0])) == pytest.approx(5e3)
    assert one_hot(np.array([1, 0]), 3).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_temperature_finds_the_scale_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 4))
    codes = np.array([rng.choice(4, p=row) for row in softmax(3.0 * logits)])
    assert fit_temperature(logits, codes) == pytest.approx(3.0, rel=0.05)
    assert 1e-3 <= fit_temperature(-one_hot(codes, 4), codes) < 1.1e-3


# ---- each against brute force


@pytest.mark.parametrize("strength", [1.0, 0.1, 0.01])
def test_linear_is_logistic_regression(task: Task, strength: float) -> None:
    """C multiplies the summed loss, strength divides it: C = 1 / strength. Narrow is direct, wide in the span."""
    from sklearn.linear_model import LogisticRegression

    standardise = Standardiser.of(task.features)
    theirs = LogisticRegression(C=1 / strength, tol=1e-9, max_iter=5_000)
    theirs.fit(standardise(task.features).astype(np.float64), task.labels)
    head = LinearHead((strength,)).fit(task.features, task.labels)
    assert head.classes_ == tuple(theirs.classes_) and head.chosen_ == {"strength": strength}
    wanted = theirs.predict_proba(standardise(task.test_features).astype(np.float64))
    got = head.probabilities(task.test_features)
    np.testing.assert_allclose(got, wanted, atol={1.0: 1e-3, 0.1: 5e-3, 0.01: 3e-2}[strength])
    codes = np.searchsorted(theirs.classes_, task.test_labels)
    losses = [-np.log(probs[np.arange(400), codes]).mean() for probs in (got, wanted)]
    assert losses[0] == pytest.approx(losses[1], rel=5e-3)


@pytest.mark.parametrize(("strength", "tolerance"), [(1.0, 1e-3), (0.01, 3e-2)])
def test_linear_in_the_span_is_linear(
    task: Task, strength: float, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer images than features are solved in their span, with the probabilities of the direct way."""
    some = slice(None, None, 2)  # 50 images, 64 or 300 features
    spanned = LinearHead((strength,)).fit(task.features[some], task.labels[some])
    ways: list[bool] = []

    def everywhere(rows: Array) -> linear._Span:
        ways.append(len(rows) < rows.shape[1])
        return linear._Span(None)

    monkeypatch.setattr(linear._Span, "of", everywhere)
    direct = LinearHead((strength,)).fit(task.features[some], task.labels[some])
    assert ways == [True]
    got, wanted = spanned.probabilities(task.test_features), direct.probabilities(task.test_features)
    np.testing.assert_allclose(got, wanted, atol=tolerance)


def test_linear_chooses_by_held_out_loss(task: Task) -> None:
    """Noise asks for a strong penalty, clean rows for a weak one."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(100, 50)).astype(np.float32)
    assert LinearHead().fit(noise, task.labels).chosen_["strength"] >= 1.0
    clean = one_hot(np.repeat(np.arange(10), 10), 10) + 0.01 * rng.normal(size=(100, 10)).astype(np.float32)
    assert LinearHead().fit(clean, task.labels).chosen_["strength"] <= 0.01


ONES = np.ones(100, np.float32)


@pytest.mark.parametrize("strength", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sizes", ["seven of many sizes", "one row or two", "nearly all are one row"])
def test_ridge_s_left_out_folds_are_those_of_refits(
    task: Task, strength: float, weighted: bool, sizes: str
) -> None:
    """Whole folds left out, rows counting differently: the closed form is the refit."""
    rng = np.random.default_rng(1)
    rows = Standardiser.of(task.features)(task.features)
    targets = one_hot(np.repeat(np.arange(10), 10), 10)
    weights = rng.uniform(0.2, 3, 100).astype(np.float32) if weighted else ONES
    folds = {
        "seven of many sizes": rng.integers(0, 7, 100),
        "one row or two": rng.permutation(np.repeat(np.arange(60), 20 * [1] + 40 * [2]))[:100],
        "nearly all are one row": np.r_[5, 5, 5, np.arange(100, 197)],
    }[sizes]
    left_out = LeastSquares(rows, targets, weights).left_out((strength,), folds)[0]
    exact, penalty = rows.astype(np.float64), strength * len(rows)
    for fold in np.unique(folds):
        rest, held, share = folds != fold, folds == fold, weights[folds != fold].astype(np.float64)
        centre, middle = (np.average(each[rest], axis=0, weights=share) for each in (exact, targets))
        inner = exact[rest] - centre
        gram = (inner.T * share) @ inner + penalty * np.eye(rows.shape[1])
        weight = np.linalg.solve(gram, (inner.T * share) @ (targets[rest] - middle))
        np.testing.assert_allclose(left_out[held], (exact[held] - centre) @ weight + middle, atol=5e-4)


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_held_out_scores_know_nothing_of_their_own_labels(task: Task, name: str) -> None:
    """Random labels cannot be predicted in held-out scores, though every head could memorise them."""
    rng = np.random.default_rng(0)
    random, true = rng.permutation(np.repeat(np.arange(10), 10)), np.repeat(np.arange(10), 10)
    best = []
    for codes in (random, true):
        held = make_head(name).held_out(Training(task.features, codes, ONES, np.arange(100), 0))
        assert held is not None and held.scores.shape == (len(held.settings), 100, 10)
        best.append((held.scores.argmax(axis=2) == codes).mean(axis=1).max())
    assert best[0] < 0.3 and best[1] > 0.6


@pytest.mark.parametrize("name", sorted(set(HEADS) - {"prototypes"}))  # every class is one prototype anyway
def test_balance_makes_a_small_class_count(name: str) -> None:
    """Two classes that overlap, 20 to 1: without balance the small one is hardly ever predicted."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(420, 4)).astype(np.float32)
    rows[400:, 0] += 1.5
    labels = np.repeat(["many", "few"], [400, 20])
    test = rng.normal(size=(2_000, 4)).astype(np.float32)
    test[1_000:, 0] += 1.5
    recalls = [
        (make_head(name).fit(rows, labels, balance=balance).predict(test)[1_000:] == "few").mean()
        for balance in (False, True)
    ]
    # few neighbours can only say so much: 15 of them hold one of the small class
    assert recalls[1] > recalls[0] + 0.1 and (name == "neighbours" or recalls[1] > 0.5), recalls


def test_class_weights_are_one_on_average() -> None:
    weights = class_weights(np.array([0] * 30 + [1] * 10))
    assert weights.mean() == pytest.approx(1) and weights[:30].sum() == pytest.approx(weights[30:].sum())


def test_views_of_an_image_do_not_vouch_for_it(name: str) -> None:
    """Labels mean nothing here; three copies of each image would let a careless search believe they do."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(100, 30)).astype(np.float32)
    copies = np.concatenate([rows, *(rows + 1e-3 * rng.normal(size=rows.shape) for _ in range(3))])
    labels, images = np.tile(np.repeat(["a", "b"], 50), 4), np.tile(np.arange(100), 4)
    head = make_head(name).fit(copies.astype(np.float32), labels, images=images)
    sure = head.probabilities(rng.normal(size=(500, 30)).astype(np.float32)).max(axis=1)
    assert np.median(sure) < 0.85, "a head that was not fooled is not sure"


@pytest.mark.parametrize("strength", [1.0, 1e-2, 1e-4])
def test_ridge_s_left_out_scores_are_those_of_refits(task: Task, strength: float) -> None:
    rows = Standardiser.of(task.features)(task.features)
    targets = one_hot(np.repeat(np.arange(10), 10), 10)
    left_out = LeastSquares(rows, targets, ONES).left_out((strength,))[0]
    exact, penalty = rows.astype(np.float64), strength * len(rows)
    for left in (0, 17, 55, 99):
        rest = np.arange(100) != left
        centre, middle = exact[rest].mean(axis=0), targets[rest].mean(axis=0)
        inner = exact[rest] - centre
        weight = np.linalg.solve(
            inner.T @ inner + penalty * np.eye(rows.shape[1]), inner.T @ (targets[rest] - middle)
        )
        np.testing.assert_allclose(left_out[left], (exact[left] - centre) @ weight + middle, atol=2e-4)


@pytest.mark.parametrize("weighted", [False, True])
def test_left_out_scores_need_only_the_products_of_rows(task: Task, weighted: bool) -> None:
    rng = np.random.default_rng(2)
    rows = Standardiser.of(task.features)(task.features) + 3  # not centred
    targets = one_hot(np.repeat(np.arange(10), 10), 10)
    weights = rng.uniform(0.2, 3, 100).astype(np.float32) if weighted else ONES
    folds = rng.integers(0, 7, 100)
    kernel = rows.astype(np.float64) @ rows.T.astype(np.float64)
    for given in (None, folds):
        np.testing.assert_allclose(
            KernelLeastSquares(kernel, targets, weights).left_out((1e-2,), given),
            LeastSquares(rows, targets, weights).left_out((1e-2,), given),
            atol=2e-4,
        )
    problem = KernelLeastSquares(kernel, targets, weights)
    errors = [problem.error(problem.left_out((strength,))[0]) for strength in (1e-3, 1e-1, 10.0)]
    np.testing.assert_allclose(problem.errors((1e-3, 1e-1, 10.0)), errors, rtol=1e-5)


def test_ridge_is_ridge(task: Task) -> None:
    from sklearn.linear_model import Ridge

    rows, targets = Standardiser.of(task.features)(task.features), one_hot(np.repeat(np.arange(10), 10), 10)
    weight, bias = LeastSquares(rows, targets, ONES).solution(1e-2)
    theirs = Ridge(alpha=1e-2 * 100).fit(rows.astype(np.float64), targets)
    test = Standardiser.of(task.features)(task.test_features)
    np.testing.assert_allclose(test @ weight + bias, theirs.predict(test), atol=1e-4)


def test_ridge_takes_the_strength_with_the_least_left_out_error(task: Task) -> None:
    rows, targets = Standardiser.of(task.features)(task.features), one_hot(np.repeat(np.arange(10), 10), 10)
    strengths = (10.0, 1e-1, 1e-2, 1e-3, 1e-6)
    problem = LeastSquares(rows, targets, ONES)
    errors = {strength: problem.error(problem.left_out((strength,))[0]) for strength in strengths}
    head = RidgeHead(strengths).fit(task.features, task.labels, classes=NAMES)
    assert head.chosen_["strength"] == min(errors, key=lambda strength: errors[strength])


def test_kernel_is_kernel_ridge(task: Task) -> None:
    """Scores of the dual solution with an intercept, up to the temperature and what no softmax sees."""
    head = KernelHead().fit(task.features, task.labels, classes=NAMES)
    gamma, penalty = head.chosen_["gamma"], head.chosen_["strength"] * 100

    def kernel(rows: Array, others: Array) -> NDArray[np.float64]:
        gaps = rows[:, None].astype(np.float64) - others[None].astype(np.float64)
        return np.exp(-gamma * (gaps**2).sum(axis=2))

    scaled, queries = head.standardise_(task.features), head.standardise_(task.test_features)
    own, test = kernel(scaled, scaled), kernel(queries, scaled)
    targets = one_hot(np.repeat(np.arange(10), 10), 10).astype(np.float64)
    centre = np.eye(100) - 1 / 100
    dual = np.linalg.solve(centre @ own @ centre + penalty * np.eye(100), centre @ targets)
    scores = (test - own.mean(axis=0)) @ centre @ dual + targets.mean(axis=0)
    logs = np.log(head.probabilities(task.test_features).astype(np.float64))
    scores -= scores.mean(axis=1, keepdims=True)
    logs -= logs.mean(axis=1, keepdims=True)
    temperature = (logs * scores).sum() / (scores**2).sum()
    assert np.abs(logs / temperature - scores).max() < 5e-3 * np.abs(scores).max()


def test_kernel_on_landmarks_is_near_the_exact_one(task: Task) -> None:
    exact = KernelHead().fit(task.features, task.labels, classes=NAMES)
    few = KernelHead(n_landmarks=80).fit(task.features, task.labels, classes=NAMES)
    assert few.chosen_["landmarks"] == 80 and exact.chosen_["landmarks"] == 100
    assert (few.predict(task.test_features) == exact.predict(task.test_features)).mean() > 0.9


def test_prototypes_shortcut_is_leave_one_out(task: Task) -> None:
    kept = np.r_[0:35, 40:100]  # uneven classes
    rows = Standardiser.of(task.features[kept])(task.features[kept]).astype(np.float64)
    codes = np.repeat(np.arange(10), 10)[kept]
    scores = np.empty((len(rows), 10))
    for left in range(len(rows)):
        rest = np.arange(len(rows)) != left
        means = np.stack([rows[rest & (codes == code)].mean(axis=0) for code in range(10)])
        scores[left] = -((rows[left] - means) ** 2).sum(axis=1)
    head = PrototypesHead().fit(task.features[kept], task.labels[kept], classes=NAMES)
    assert head.chosen_["temperature"] == pytest.approx(fit_temperature(scores, codes), rel=1e-3)


def test_prototypes_leave_whole_clusters_out(task: Task) -> None:
    """The temperature of pairs of copies is that of a refit without the pair, not without one of them."""
    rows = np.repeat(task.features[::2], 2, axis=0)
    labels, codes = np.repeat(task.labels[::2], 2), np.repeat(np.repeat(np.arange(10), 10)[::2], 2)
    standard = Standardiser.of(rows)(rows).astype(np.float64)
    scores = np.empty((100, 10))
    for left in range(0, 100, 2):
        rest = np.arange(100) // 2 != left // 2
        means = np.stack([standard[rest & (codes == code)].mean(axis=0) for code in range(10)])
        scores[left : left + 2] = -((standard[left] - means) ** 2).sum(axis=1)
    head = PrototypesHead().fit(rows, labels, classes=NAMES, clusters=np.arange(100) // 2)
    assert head.chosen_["temperature"] == pytest.approx(fit_temperature(scores, codes), rel=1e-3)


@pytest.mark.parametrize("name", sorted(HEADS))
@pytest.mark.parametrize("per_class", [1, 2, 3])
def test_few_labels_do_not_end_at_the_end_of_a_grid(digits: Dataset, name: str, per_class: int) -> None:
    """Five draws of digits: no head is far below the nearest neighbour, with nothing to validate on either.

    The MLP has no closed form and no claim to few labels.
    """
    pixels = digits.images.pixels.reshape(len(digits), -1).astype(np.float32)
    ours, plain = [], []
    for seed in range(5):
        learn = nested_subsets(digits.labels, (per_class,), seed=seed)[per_class]
        rest = np.setdiff1d(np.arange(len(digits)), learn)
        gaps = ((pixels[rest][:, None] - pixels[learn][None]) ** 2).sum(axis=2)
        plain.append((digits.labels[learn][gaps.argmin(axis=1)] == digits.labels[rest]).mean())
        head = make_head(name).fit(pixels[learn], digits.labels[learn], classes=digits.classes, seed=seed)
        ours.append((head.predict(pixels[rest]) == digits.labels[rest]).mean())
    margin = 0.15 if name == "mlp" else 0.05
    assert np.mean(ours) > np.mean(plain) - margin, (np.mean(ours), np.mean(plain))


def test_prototypes_answer_by_the_nearest_mean(task: Task) -> None:
    standardise = Standardiser.of(task.features)
    means = standardise(task.features).reshape(10, 10, -1).mean(axis=1)
    gaps = standardise(task.test_features)[:, None] - means[None]
    wanted = np.array(NAMES)[(gaps**2).sum(axis=2).argmin(axis=1)]
    head = PrototypesHead().fit(task.features, task.labels, classes=NAMES)
    assert (head.predict(task.test_features) == wanted).mean() > 0.995


@pytest.mark.parametrize("k", [1, 3])
def test_neighbours_are_counted(task: Task, k: int) -> None:
    head = NeighboursHead((k,)).fit(task.features, task.labels, classes=NAMES)
    standardise = (Standardiser.centring, Standardiser.of)[int(head.chosen_["scaled"])](task.features)
    gaps = standardise(task.test_features)[:, None].astype(float) - standardise(task.features)[None].astype(
        float
    )
    near = (gaps**2).sum(axis=2).argsort(axis=1, kind="stable")[:, :k]
    votes = one_hot(np.repeat(np.arange(10), 10), 10)[near].sum(axis=1)
    assert head.chosen_["neighbours"] == k
    got = head.probabilities(task.test_features)
    wanted = softmax(np.log((votes + 0.5) / (k + 5)) * head.chosen_["temperature"])
    assert (np.abs(got - wanted).max(axis=1) < 1e-2).mean() > 0.995


@pytest.mark.parametrize("copies", [1, 2])
def test_neighbours_do_not_count_an_image_as_its_own(copies: int) -> None:
    """Labels that mean nothing, copies at odds: only a vote for itself makes one neighbour look good."""
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(60 // copies, 6)).astype(np.float32), copies, axis=0)
    labels = np.tile(["ant", "bee"], 30)
    clusters = np.arange(60) // copies
    head = NeighboursHead((1, 15)).fit(rows, labels, clusters=clusters)
    assert head.chosen_["temperature"] < 0.5  # votes that mean nothing make nobody sure


def test_equal_distances_are_settled_alike_in_the_graph() -> None:
    """Copies of one image are as near as each other; here and in the graph the first ones vote."""
    rows, labels = np.zeros((12, 64), np.float32), np.repeat(["ant", "bee", "cat"], 4)
    rows[:, 0] = np.tile([0.0, 0.0, 1.0], 4)
    head = NeighboursHead((5,)).fit(rows, labels)
    images = np.zeros((2, 8, 8, 1), np.uint8)
    images[1, 0, 0] = 255
    wanted = head.probabilities(images.reshape(2, 64).astype(np.float32) / 255)
    for runtime in RUNTIMES:
        ready = compile_graph(graph_of(head), runtime=runtime, precision="fp32", batch_size=2)
        np.testing.assert_allclose(ready.run([images], 2), wanted, atol=1e-5)


def test_mlp_stops_by_images_it_holds_out(task: Task) -> None:
    head = MLPHead(epochs=300, patience=3).fit(task.features, task.labels, classes=NAMES)
    assert 1 <= head.chosen_["epochs"] < 300
    few = MLPHead(epochs=7).fit(task.features[::4], task.labels[::4], classes=NAMES)
    assert few.chosen_["epochs"] == 7  # of 25 images none can be spared


def test_mlp_follows_its_seed(task: Task) -> None:
    one, other = (MLPHead(epochs=3).fit(task.features, task.labels, seed=seed) for seed in (0, 1))
    assert not np.array_equal(one.probabilities(task.test_features), other.probabilities(task.test_features))


def test_a_linear_head_validates_on_groups_that_two_folds_cannot_hold() -> None:
    """Three classes from three groups, two each: any two folds hold all of one class; three do not."""
    rng = np.random.default_rng(0)
    labels = np.array(["a", "a", "b", "b", "c", "c"])
    rows = rng.normal(size=(6, 4)).astype(np.float32) + 3 * np.repeat(np.eye(3, 4), 2, axis=0).astype(
        np.float32
    )
    head = LinearHead().fit(rows, labels, clusters=np.array([0, 1, 1, 2, 2, 0]))
    assert (head.predict(rows) == labels).all()


@pytest.mark.parametrize("far", [0, 3])
def test_kernel_ridge_fits_rows_that_differ_by_rounding_errors_or_have_outliers(far: int) -> None:
    rng = np.random.default_rng(0)
    levels = np.sort([10 * i + 100 * k for i in range(6) for k in range(2)]) / 255
    rows = np.outer(levels, np.ones(3 * 64 * 64))  # of one direction, as the pixels of constant images
    if far:
        rows = np.concatenate([10 * rng.normal(size=(far, 20)), 1 + 1e-4 * rng.normal(size=(57, 20))])
    labels = np.array(["a", "b"])[np.arange(len(rows)) % 2]

    head = make_head("kernel").fit(rows.astype(np.float32), labels, classes=("a", "b"), seed=0)

    assert np.isfinite(head.probabilities(rows.astype(np.float32))).all()


@pytest.mark.parametrize("name", list(HEADS))
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(name: str, wrong: float) -> None:
    """Kernel ridge on 100 rows gave NaN probabilities for them."""
    features = np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)
    features[7, 3] = wrong
    with pytest.raises(
        DataError, match="features are not finite, expected moderate numbers; take another layer"
    ):
        make_head(name).fit(features, np.array(["a", "b"])[np.arange(100) % 2])
