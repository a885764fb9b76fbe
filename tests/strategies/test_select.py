"""The choice of place, head and strength: against refits by hand, planted winners, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.errors import DataError, SettingError
from headstart.heads.held_out import best_setting
from headstart.heads.registry import CLOSED_FORM, HEADS, SEARCHED, make_head
from headstart.heads.scaling import Standardiser
from headstart.heads.training import Training
from headstart.records import Array, Codes
from headstart.sources.registry import open_source
from headstart.strategies.places import Probe, places_of
from headstart.strategies.select import MOST_IMAGES, PRIOR_NATS, Choice, choose, deciding_images

Floats = NDArray[np.float64]


def planted(n_per_class: int, n_classes: int, width: int, apart: float, seed: int = 0) -> tuple[Array, Codes]:
    """Clouds whose centres lie so far apart, in random order."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(np.arange(n_classes), n_per_class))
    centres = apart * rng.normal(size=(n_classes, width))
    return (centres[codes] + rng.normal(size=(len(codes), width))).astype(np.float32), codes


def noise(n: int, width: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def training_of(features: Array, codes: Codes, clusters: NDArray[np.intp] | None = None) -> Training:
    return Training(features, codes, np.ones(len(codes), np.float32), np.arange(len(codes)), 0, clusters)


def refitted(rows: Floats, codes: Codes, numbers: NDArray[np.intp], strength: float) -> Floats:
    """Ridge with intercept solved anew without each fold; the penalty is that of all rows."""
    targets, scores = np.eye(codes.max() + 1)[codes], np.empty((len(rows), codes.max() + 1))
    for number in np.unique(numbers):
        rest, held = numbers != number, numbers == number
        centre, middle = rows[rest].mean(axis=0), targets[rest].mean(axis=0)
        inner = rows[rest] - centre
        gram = inner.T @ inner + strength * len(rows) * np.eye(rows.shape[1])
        scores[held] = (rows[held] - centre) @ np.linalg.solve(
            gram, inner.T @ (targets[rest] - middle)
        ) + middle
    return scores


def voted(rows: Floats, codes: Codes, numbers: NDArray[np.intp], k: int) -> Floats:
    scores = np.empty((len(rows), codes.max() + 1))
    for here, row in enumerate(rows):
        others = np.flatnonzero(numbers != numbers[here])
        near = codes[others[np.argsort(((rows[others] - row) ** 2).sum(axis=1))]]
        scores[here] = np.bincount(near[:k], minlength=codes.max() + 1) / k
        scores[here, near[0]] += 1e-3 / k
    return scores


def by_hand(head: str, features: Array, codes: Codes, numbers: NDArray[np.intp], setting: float) -> Floats:
    rows = Standardiser.of(features)(features).astype(np.float64)
    if head == "neighbours":
        return voted(rows, codes, numbers, int(setting))
    return refitted(rows, codes, numbers, setting)


PAIRS = np.arange(60) // 2  # clusters of two


@pytest.mark.parametrize("clusters", [None, PAIRS], ids=["alone", "pairs"])
@pytest.mark.parametrize("head", ["ridge", "neighbours"])
def test_held_out_scores_are_those_of_refits(head: str, clusters: NDArray[np.intp] | None) -> None:
    features, codes = planted(15, 4, 5, apart=0.8, seed=1)
    numbers = np.arange(60) if clusters is None else clusters
    held = make_head(head).held_out(training_of(features, codes, clusters))
    assert held is not None
    for setting, scores in zip(held.settings, held.scores, strict=True):
        if setting.get("scaled") == 0:
            continue  # the same with other distances
        wanted = by_hand(head, features, codes, numbers, next(iter(setting.values())))
        np.testing.assert_allclose(scores, wanted, atol=1e-3)


@pytest.mark.parametrize("clusters", [None, PAIRS], ids=["alone", "pairs"])
def test_kernel_scores_are_those_of_fits_without_the_cluster(clusters: NDArray[np.intp] | None) -> None:
    """Its scaling and width are chosen once on all images; the strengths' scores are refits at these."""
    features, codes = planted(15, 4, 5, apart=0.8, seed=1)
    held = make_head("kernel").held_out(training_of(features, codes, clusters))
    assert held is not None
    fitted = make_head("kernel").fit(features, codes.astype(str), clusters=clusters)
    rows = fitted.standardise_(features).astype(np.float64)
    squared = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    values, vectors = np.linalg.eigh(np.exp(-fitted.gamma_ * squared))
    expanded = vectors * np.sqrt(np.maximum(values, 0))
    numbers = np.arange(60) if clusters is None else clusters
    for setting, scores in zip(held.settings, held.scores, strict=True):
        if setting["strength"] > 1e-4:  # below, rounding of the kernel shows
            wanted = refitted(expanded, codes, numbers, setting["strength"])
            np.testing.assert_allclose(scores, wanted, atol=2e-2)


@pytest.mark.parametrize("clusters", [None, np.arange(90) // 3], ids=["alone", "triples"])
@pytest.mark.parametrize("head", sorted(HEADS))
def test_what_is_judged_is_what_is_fitted(head: str, clusters: NDArray[np.intp] | None) -> None:
    """Selection and the final fit agree on head and setting: the contract of every head."""
    features, codes = planted(30, 3, 20, apart=0.45, seed=2)
    held = make_head(head).held_out(training_of(features, codes, clusters))
    fitted = make_head(head).fit(features, codes.astype(str), clusters=clusters)
    assert (held is not None) == (head in CLOSED_FORM)
    if held is not None:
        setting = held.settings[best_setting(held)]
        assert setting.items() <= fitted.chosen_.items()
        choice = choose({("stage1", "avg"): features}, codes, heads=[head], clusters=clusters)
        assert choice.best.setting == setting


def test_the_setting_taken_has_the_least_squared_error() -> None:
    features, codes = planted(20, 3, 20, apart=0.4, seed=7)
    held = make_head("ridge").held_out(training_of(features, codes))
    assert held is not None
    errors = ((held.scores - np.eye(3, dtype=np.float32)[codes]) ** 2).sum(axis=2).mean(axis=1)
    best = choose({("stage1", "avg"): features}, codes, heads=["ridge"]).best
    assert best.setting == held.settings[int(errors.argmin())]
    assert best.error == pytest.approx(errors.min(), rel=1e-5)


def test_copies_do_not_judge_each_other() -> None:
    """Noise with random labels, every row twice: without clusters it is learned by heart."""
    rng = np.random.default_rng(0)
    rows, codes = np.repeat(noise(60, 30, 3), 2, axis=0), np.repeat(rng.integers(0, 2, 60), 2)
    features = {("stage1", "avg"): rows}
    alone = choose(features, codes, heads=["neighbours"])
    together = choose(features, codes, heads=["neighbours"], clusters=np.arange(120) // 2)
    assert alone.best.accuracy.value > 0.9
    assert abs(together.best.accuracy.value - 0.5) < 0.2


def places(n: int, signal: Array) -> dict[tuple[str, str], Array]:
    return {
        ("stage1", "avg"): noise(n, 20, 1),
        ("stage2", "grid2"): signal,
        ("embedding", "flat"): noise(n, 30, 2),
    }


def test_the_planted_place_wins_and_trials_stand_in_order() -> None:
    signal, codes = planted(25, 4, 10, apart=0.8)
    choice = choose(places(100, signal), codes)
    assert (choice.best.layer, choice.best.pooling) == ("stage2", "grid2")
    assert len(choice.trials) == 3 * len(SEARCHED) and {trial.head for trial in choice.trials} == set(
        SEARCHED
    )
    ranks = [(trial.loss, -trial.accuracy.value) for trial in choice.trials]
    assert ranks == sorted(ranks)
    settings = {name: make_head(name).held_out(training_of(signal, codes)) for name in SEARCHED}
    assert choice.n_tried == 3 * sum(len(held.settings) for held in settings.values() if held is not None)
    assert choice.n_images == 100


@pytest.mark.parametrize("turned", [False, True])
def test_of_equal_accuracy_the_least_loss_wins(turned: bool) -> None:
    signal, codes = planted(15, 3, 12, apart=6.0)
    rough = (signal + 1.5 * noise(45, 12, 3)).astype(np.float32)
    order = {("rough", "avg"): rough, ("clear", "avg"): signal}
    choice = choose(dict(reversed(order.items())) if turned else order, codes, heads=["ridge"])
    assert [trial.accuracy.value for trial in choice.trials] == [1.0, 1.0]
    assert choice.best.layer == "clear" and choice.trials[0].loss < choice.trials[1].loss


def test_the_sentence_says_what_was_selected() -> None:
    signal, codes = planted(25, 4, 10, apart=0.8)
    choice = choose(places(100, signal), codes)
    best = choice.best
    assert choice.sentence == (
        f"{best.head} on stage2, grid2 ({best.described}) was selected by leave-one-out cross-validation on "
        f"100 training images among {choice.n_tried} candidates."
    )


def test_of_few_images_the_default_stays_unless_another_place_is_clearly_better() -> None:
    """The best of many places is best by chance: it must gain 4 nats in all, which many images can give."""
    default = ("stage9", "avg")
    for n_each, expected in ((3, default), (40, ("stage0", "avg"))):
        signal, codes = planted(n_each, 2, 6, apart=1.0, seed=3)
        weak = (signal + noise(2 * n_each, 6, 9)).astype(np.float32)
        others = {(f"stage{number}", "avg"): noise(2 * n_each, 6, number) for number in range(1, 9)}
        features = {("stage0", "avg"): signal, **others, default: weak}
        choice = choose(features, codes, default=default)
        assert (choice.best.layer, choice.best.pooling) == expected, n_each
        gains = [
            one.loss + (0 if (one.layer, one.pooling) == default else PRIOR_NATS / len(codes))
            for one in choice.trials
        ]
        assert gains == sorted(gains) and choice.default == default


def test_the_default_stays_where_another_place_has_its_features() -> None:
    signal, codes = planted(10, 3, 8, apart=1.0)
    named = {("stage5", "avg"): signal, ("embedding", "flat"): signal.copy()}
    choice = choose(named, codes, default=("embedding", "flat"))
    assert {trial.layer for trial in choice.trials} == {"embedding"}


def test_a_place_under_another_name_is_left_out() -> None:
    signal, codes = planted(10, 3, 8, apart=1.0)
    rounded = (signal * (1 + 2**-9 * np.sign(noise(30, 8, 4)))).astype(np.float32)  # as bf16 rounds
    named = {("stage5", "avg"): signal, ("embedding", "flat"): rounded, ("stage4", "avg"): noise(30, 8, 5)}
    choice = choose(named, codes, heads=["ridge"])
    assert {trial.layer for trial in choice.trials} == {"stage5", "stage4"}
    assert len(choice.trials) == 2


def test_a_place_that_shares_one_large_feature_is_another_place() -> None:
    """Blocks of a vision transformer share a few activations a hundred times the others'."""
    signal, codes = planted(20, 3, 8, apart=1.5)
    early = noise(60, 8, 6)
    for rows in (early, signal):
        rows[:, 0] = 500.0
    choice = choose({("stage5", "avg"): early, ("stage6", "avg"): signal}, codes, heads=["ridge"])
    assert choice.best.layer == "stage6"


def test_random_labels_give_about_chance() -> None:
    rng = np.random.default_rng(0)
    codes = rng.permutation(np.repeat(np.arange(4), 60))
    choice = choose({(f"stage{number}", "avg"): noise(240, 40, number) for number in range(3)}, codes)
    assert all(trial.accuracy.value < 0.38 for trial in choice.trials)  # below: the class left out is rarer


def test_features_that_are_all_the_same_are_tried_and_lose() -> None:
    signal, codes = planted(10, 3, 8, apart=2.0)
    choice = choose({("dead", "avg"): np.ones((30, 8), np.float32), ("stage2", "avg"): signal}, codes)
    assert {trial.layer for trial in choice.trials} == {"dead", "stage2"} and choice.best.layer == "stage2"
    assert all(np.isfinite(trial.error) for trial in choice.trials)


@pytest.mark.parametrize("smallest", [2, 3, 12])
def test_a_class_with_few_images_is_judged(smallest: int) -> None:
    codes = np.repeat(np.arange(3), (20, 20, smallest))
    rows = (np.eye(3)[codes] * 4 + noise(len(codes), 3, 0)).astype(np.float32)
    choice = choose({("stage1", "avg"): rows}, codes)
    assert choice.n_images == len(codes) and choice.best.accuracy.value > 0.8


def test_a_class_with_one_image_is_one_sentence() -> None:
    codes = np.repeat(np.arange(2), (9, 1))
    with pytest.raises(DataError, match="expected two") as caught:
        choose({("stage1", "avg"): noise(10, 3, 0)}, codes)
    assert "\n" not in str(caught.value)


def large(counts: tuple[int, ...]) -> tuple[Array, Codes]:
    codes = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    return (np.eye(4)[codes] * 3 + noise(len(codes), 4, 1)).astype(np.float32), codes


def test_of_many_images_a_stratified_part_is_used() -> None:
    features, codes = large((3_600, 1_800, 600))
    choice = choose({("stage1", "avg"): features}, codes, heads=["ridge"])
    assert abs(choice.n_images - MOST_IMAGES) <= 3
    np.testing.assert_allclose(np.bincount(codes[deciding_images(codes, 0)]), (900, 450, 150), atol=1)
    assert choice.best.accuracy.value > 0.9, "rows and classes are those of the same images"


def test_a_small_class_among_many_images_can_be_judged() -> None:
    features, codes = large((8_000, 8_000, 10))
    assert choose({("stage1", "avg"): features}, codes, heads=["neighbours"]).best.accuracy.value > 0.8


@pytest.mark.parametrize(
    ("heads", "said"),
    [
        (["ridg"], f"head is 'ridg', expected one of {', '.join(CLOSED_FORM)}; nearest are ridge"),
        (["ridge", "mlp"], f"head is 'mlp', expected one of {', '.join(CLOSED_FORM)}"),
        ([], "there is nothing to choose from, expected features and heads; name some"),
    ],
)
def test_what_cannot_be_tried_is_one_sentence(heads: list[str], said: str) -> None:
    with pytest.raises(SettingError) as caught:
        choose({("stage1", "avg"): noise(4, 3, 0)}, np.array([0, 0, 1, 1]), heads=heads)
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


def test_no_features_are_nothing_to_choose_from() -> None:
    with pytest.raises(SettingError, match="there is nothing to choose from"):
        choose({}, np.array([0, 0, 1, 1]))


def timeless(choice: Choice) -> Choice:
    return replace(choice, seconds=0.0)


@pytest.mark.parametrize("counts", [(40, 40, 40), (900, 600, 300)])
def test_the_same_seed_is_the_same_choice(counts: tuple[int, ...]) -> None:
    features, codes = large(counts)
    features += 2 * noise(len(codes), 4, 7)
    one, same, other = (
        timeless(choose({("stage1", "avg"): features}, codes, heads=["ridge", "neighbours"], seed=seed))
        for seed in (0, 0, 1)
    )
    assert one == same and (one == other) == (len(codes) <= MOST_IMAGES)  # nothing else is drawn


@pytest.mark.parametrize("head", CLOSED_FORM)
@pytest.mark.parametrize("alike", [True, False])
def test_no_setting_reads_random_labels_off_copies(head: str, alike: bool) -> None:
    """A kernel that interpolates leaves residuals near rounding: at strength 1e-8 all answers were right."""
    rng, clusters = np.random.default_rng(0), np.repeat(np.arange(40), 3)
    rows = np.abs(rng.normal(size=(40, 500)))[clusters]
    if not alike:
        rows = rows + 5 * rng.normal(size=rows.shape)
    codes = np.repeat(rng.integers(0, 2, 40), 3)
    training = Training(rows.astype(np.float32), codes, np.ones(120, np.float32), np.arange(120), 0, clusters)
    held = make_head(head).held_out(training)
    assert held is not None
    shares = [(one.argmax(axis=1) == codes).mean() for one in held.scores]
    assert max(shares) < 0.8 and min(held.errors) > 0.2, list(zip(held.settings, shares, strict=True))


@pytest.mark.parametrize(
    ("name", "layer", "named"),
    [
        ("hog", None, "source 'hog'"),
        ("pixels", "values", "source 'pixels'"),
        ("random:mlp", None, "source 'random:mlp'"),
        ("random:cnn", "flatten", "layer 'flatten' of source 'random:cnn'"),
    ],
)
def test_a_pooling_of_what_has_no_maps_is_refused(
    name: str, layer: str | None, named: str, digits: Dataset
) -> None:
    source = open_source(name, digits)
    for pooling in ("avg", "grid2"):
        with pytest.raises(
            SettingError, match=rf"^pooling is '{pooling}' for {named}, which has no feature maps"
        ):
            places_of(source, Probe(layer=layer, pooling=pooling))
    assert places_of(source, Probe(layer=layer, pooling="flat"))[0]
