"""The search over features: planted winners, scores by hand, meaningless labels, what it must not see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation
from headstart.data.stores import ArrayImages
from headstart.errors import DataError, SettingError
from headstart.heads.registry import SEARCHED
from headstart.heads.ridge import RidgeHead
from headstart.heads.scaling import Standardiser
from headstart.records import Array, InputSpec, Source
from headstart.sources.features import AugmentedCopy, Extraction
from headstart.sources.registry import open_source
from headstart.workflows.tune import clock as search_clock
from headstart.workflows.tune import copies as copies_module
from headstart.workflows.tune import features as tune
from headstart.workflows.tune.clock import Clock
from headstart.workflows.tune.features import (
    NO_AUGMENTATION,
    FeatureTuning,
    Where,
    explained,
    places_to_try,
    tune_arrays,
    tune_features,
)

Names = NDArray[np.str_]


def labelled(n_per_class: int, n_classes: int, seed: int = 0) -> Names:
    names = np.array([f"c{code}" for code in range(n_classes)])
    return np.random.default_rng(seed).permutation(np.repeat(names, n_per_class))


def clouds(labels: Names, width: int, apart: float, seed: int = 0) -> Array:
    """Rows around a centre for each class, so far apart."""
    rng = np.random.default_rng(seed)
    codes = np.unique(labels, return_inverse=True)[1]
    centres = apart * rng.normal(size=(codes.max() + 1, width))
    return (centres[codes] + rng.normal(size=(len(codes), width))).astype(np.float32)


def where(layer: str, policy: str = "squish", pooling: str = "avg") -> Where:
    return Where(policy, layer, pooling)


def searched(seed: int = 0, n_per_class: int = 25) -> FeatureTuning:
    """Three places, of which the middle one tells the classes apart."""
    labels = labelled(n_per_class, 3)
    tables = {where(layer): clouds(labels, 6, apart, n) for n, (layer, apart) in enumerate(
        [("first", 0.1), ("middle", 2.0), ("last", 0.4)]
    )}  # fmt: skip
    return tune_arrays(tables, labels, seed=seed)


# --- what wins


def test_the_planted_place_wins_and_the_search_is_judged_by_images_it_did_not_see() -> None:
    found = searched()
    assert found.best.where.layer == "middle" and found.nested.value > 0.9
    assert {pick.where.layer for pick in found.picks} == {"middle"} and len(
        found.picks
    ) == 3 * found.n_outer == 15
    assert found.nested.n == found.n_images == 75 and found.repeats == 3 and found.spread < 0.05
    assert [one.rank for one in found.trials] == sorted(one.rank for one in found.trials)
    assert {one.head for one in found.trials} == set(SEARCHED)
    settled = [one for one in found.trials if one.settled]
    assert len(settled) == 3 * len(SEARCHED) and found.trials[0].settled
    assert found.runner_up is not None and found.runner_up.where.layer != "middle"
    assert found.lead is not None and found.lead.value > 0.1


def test_rivals_search_less_or_nothing_on_the_same_folds() -> None:
    found = searched()
    rivals = {one.name: one for one in found.rivals}
    assert list(rivals) == ["default settings", "majority"]
    assert rivals["majority"].accuracy.value == pytest.approx(1 / 3, abs=0.1)
    assert rivals["default settings"].accuracy.value < 0.6  # it reads at the first place
    for one in rivals.values():
        assert one.lead.value == pytest.approx(found.nested.value - one.accuracy.value)
        assert one.lead.p_value < 0.05 and one.accuracy.n == one.lead.n == 75


def by_hand(rows: Array, copies: Sequence[Array], codes: Any, numbers: Any, strength: float) -> float:
    """Ridge solved anew without each fold and all its copies; the share of images themselves right."""
    everything = np.concatenate([rows, *copies])
    standard = Standardiser.of(everything)(everything).astype(np.float64)
    images = np.tile(np.arange(len(rows)), 1 + len(copies))
    targets, right = np.eye(codes.max() + 1)[codes[images]], 0
    for number in np.unique(numbers):
        rest = numbers[images] != number
        centre, middle = standard[rest].mean(axis=0), targets[rest].mean(axis=0)
        inner = standard[rest] - centre
        gram = inner.T @ inner + strength * len(everything) * np.eye(rows.shape[1])
        weight = np.linalg.solve(gram, inner.T @ (targets[rest] - middle))
        held = np.flatnonzero(numbers == number)
        right += int((((standard[held] - centre) @ weight + middle).argmax(axis=1) == codes[held]).sum())
    return right / len(rows)


def test_scores_with_views_are_those_of_fits_that_saw_no_view_of_the_images_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = labelled(20, 3)
    plain, copies = clouds(labels, 5, 0.8), [clouds(labels, 5, 0.8, seed) for seed in (3, 4)]
    found = feature_tuned(monkeypatch, labels, {"only": plain}, copies={"only": copies}, heads=["ridge"])
    codes = np.unique(labels, return_inverse=True)[1]
    numbers = np.arange(len(codes))
    checked = 0
    for trial in found.trials:
        if trial.head == "ridge":
            used = copies if trial.augment != NO_AUGMENTATION else []
            assert trial.accuracy.value == by_hand(plain, used, codes, numbers, trial.strength)
            assert trial.accuracy.n == len(labels)
            checked += trial.augment != NO_AUGMENTATION
    assert checked == len(RidgeHead().strengths)


# --- honesty


@pytest.mark.slow
def test_with_labels_that_mean_nothing_the_best_score_flatters_and_the_nested_one_does_not() -> None:
    rng, best, nested = np.random.default_rng(0), [], []
    tables = {where(f"t{n}"): rng.normal(size=(60, 5)).astype(np.float32) for n in range(4)}
    for seed in range(6):
        labels = labelled(30, 2, seed)
        found = tune_arrays(tables, labels, heads=("ridge", "neighbours"), seed=seed)
        best.append(found.best.accuracy.value)
        nested.append(found.nested.value)
    assert np.mean(best) > 0.6
    # six searches of 60 images: a standard error of 2.6 points, a little more as they share features
    assert abs(np.mean(nested) - 0.5) < 0.08


def test_images_of_a_group_are_left_out_together() -> None:
    """A feature that names the writer tells the class in the search, and nothing of other writers."""
    rng = np.random.default_rng(0)
    writers = np.repeat(np.arange(20), 6)
    labels = np.array(["a", "b"])[rng.permutation(np.repeat([0, 1], 10))][writers]
    rows = (rng.normal(size=(20, 30))[writers] + 0.1 * rng.normal(size=(120, 30))).astype(np.float32)
    mixed = tune_arrays({where("only"): rows}, labels)
    grouped = tune_arrays({where("only"): rows}, labels, groups=writers.astype(str))
    assert mixed.nested.value > 0.95
    assert grouped.nested.value < 0.8 and grouped.best.accuracy.value < 0.9


@pytest.mark.slow
def test_copies_do_not_make_the_interval_of_the_estimate_narrower() -> None:
    labels = labelled(20, 2)
    rows = clouds(labels, 4, 0.5)
    once = tune_arrays({where("only"): rows}, labels)
    copies = np.arange(40).repeat(2)
    twice = tune_arrays({where("only"): rows[copies]}, labels[copies], groups=copies)
    assert twice.nested.high - twice.nested.low > 0.95 * (once.nested.high - once.nested.low)


@pytest.mark.slow
def test_same_seed_same_search_and_other_folds_with_another() -> None:
    assert replace(searched(), seconds=0.0) == replace(searched(), seconds=0.0)
    assert [one.lead for one in searched(1).rivals] != [one.lead for one in searched().rivals]


def test_few_images_are_judged_several_times_over() -> None:
    found = searched(n_per_class=8)
    assert (found.repeats, found.n_outer, len(found.picks)) == (3, 8, 24)
    assert found.nested.n == 24
    assert any(one.spread > 0 for one in found.rivals)


# --- through a source


def feature_tuned(
    monkeypatch: pytest.MonkeyPatch,
    labels: Names,
    plain: dict[str, Array],
    *,
    copies: dict[str, list[Array]] | None = None,
    policies: Sequence[str] = ("squish",),
    asked: list[Any] | None = None,
    **options: Any,
) -> FeatureTuning:
    """Search where the features of each layer, and of its copies, are these; of every policy the same."""

    def extracted(
        dataset: Dataset, source: Source, places: Any, copy: AugmentedCopy | None = None, options: Any = None
    ) -> list[Array]:
        if asked is not None:
            asked.append((source.input.policy, tuple(layer for layer, _ in places), copy))
        own = 0.0 if source.input.policy == policies[0] else 5.0 * np.arange(len(dataset))[:, None] % 7
        rows = [plain[layer] if copy is None else (copies or {})[layer][copy.number] for layer, _ in places]
        return [(one[: len(dataset)] + own).astype(np.float32) for one in rows]

    for module in (tune, copies_module):
        monkeypatch.setattr(module, "extract_all", extracted)
    images = ArrayImages(np.zeros((len(labels), 4, 4), np.uint8))
    layers = {layer: (rows.shape[1],) for layer, rows in plain.items()}
    first = next(iter(layers))
    source = Source(
        "s", b"", InputSpec(4, 4, 1), layers, first, "f", candidates=tuple((t, "flat") for t in layers)
    )
    sources = {policy: replace(source, input=replace(source.input, policy=policy)) for policy in policies}
    augmentations = (
        None if copies is None else {"some": Augmentation((("flip", 0.5),), len(next(iter(copies.values()))))}
    )
    dataset = Dataset("d", images, labels, tuple(np.unique(labels).tolist()))
    return tune_features(sources, dataset, augmentations=augmentations, **options)


@pytest.mark.slow
def test_views_that_help_are_taken_and_those_that_mislead_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = labelled(14, 3)
    plain = {"a": clouds(labels, 20, 0.35)}
    codes = np.unique(labels, return_inverse=True)[1]
    centres = (0.35 * np.random.default_rng(0).normal(size=(3, 20)))[codes]  # those of clouds()
    fresh = np.random.default_rng(9)
    good = [(centres + fresh.normal(size=centres.shape)).astype(np.float32) for _ in range(6)]
    bad = [copy[fresh.permutation(len(copy))] for copy in good]
    helped = feature_tuned(monkeypatch, labels, plain, copies={"a": good})
    misled = feature_tuned(monkeypatch, labels, plain, copies={"a": bad})
    assert helped.best.augment == "some" and misled.best.augment == NO_AUGMENTATION
    assert {factor.name for factor in helped.factors} >= {"augmentation", "head"}
    rivals = {one.name: one.accuracy.value for one in helped.rivals}
    assert helped.nested.value > rivals["default preparation"]


@pytest.mark.slow
def test_views_are_computed_of_the_best_places_only_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, asked = labelled(20, 2), []
    plain = {f"t{n}": clouds(labels, 6, apart, n) for n, apart in enumerate((0.0, 3.0, 0.0, 2.5, 0.0))}
    feature_tuned(monkeypatch, labels, plain, copies={t: [r] for t, r in plain.items()}, asked=asked)
    viewed = [layers for _, layers, copy in asked if copy is not None]
    assert len(asked) == 2 and len(viewed) == 1  # one pass over the images, one over their copies
    assert set(viewed[0]) <= {"t1", "t3"}


@pytest.mark.slow
def test_a_preparation_that_changes_nothing_is_not_tried_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = labelled(12, 2)
    plain = {
        "a": clouds(labels, 6, 1.0),
        "b": clouds(labels, 6, 1.0) * 1.0001,
        "c": clouds(labels, 6, 0.2, 3),
    }
    found = feature_tuned(monkeypatch, labels, plain, policies=("squish", "squish2"))
    assert {trial.where.layer for trial in found.trials if trial.where.policy == "squish"} == {"a", "c"}
    monkeypatch.undo()
    noise = np.random.default_rng(0).integers(0, 255, (24, 8, 8)).astype(np.uint8)
    pixels = Dataset("d", ArrayImages(noise), labels, ("c0", "c1"))
    sources = {policy: open_source("pixels", pixels, policy=policy) for policy in ("squish", "letterbox")}
    assert tune_features(sources, pixels, options=Extraction(runtime="onnxruntime")).left_out == (
        "preparation letterbox (it changes nothing here)",
    )


@pytest.mark.slow
def test_a_budget_leaves_out_what_does_not_fit_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = labelled(12, 2)
    plain = {"a": clouds(labels, 6, 1.0)}
    found = feature_tuned(
        monkeypatch, labels, plain, policies=("squish", "crop"), copies={"a": [plain["a"]]}, budget_s=1e-9
    )
    assert found.left_out == (
        "preparation crop (out of time)",
        "1 of 2 combinations of layer, pooling and head, from kernel on a, flat, squish on (out of time)",
        "augmentation some (out of time)",
        "28 of 30 outer folds of the estimate (out of time)",
    )
    assert found.n_outer == len(found.picks) == 2 and found.nested.n in (4, 5, 6)
    assert {(trial.where.policy, trial.head) for trial in found.trials} == {("squish", "ridge")}
    assert all(one.accuracy.n == one.lead.n == found.nested.n for one in found.rivals)
    whole = feature_tuned(
        monkeypatch, labels, plain, policies=("squish", "crop"), copies={"a": [plain["a"]]}, budget_s=1e6
    )
    assert not whole.left_out and {trial.where.policy for trial in whole.trials} == {"squish", "crop"}
    free = feature_tuned(monkeypatch, labels, plain, policies=("squish", "crop"), copies={"a": [plain["a"]]})
    assert replace(free, seconds=0.0) == replace(whole, seconds=0.0)


class Ticking:
    """A clock that moves only by what searching and fitting are said to cost."""

    COSTS: ClassVar = {"ridge": 1.0, "kernel": 3.0, "neighbours": 0.5}

    def __init__(self, monkeypatch: pytest.MonkeyPatch, n_images: int) -> None:
        self.now = 0.0
        monkeypatch.setattr(search_clock, "perf_counter", lambda: self.now)
        for name in ("tried_once", "evaluated"):
            monkeypatch.setattr(
                tune.FeatureSearch, name, self.costing(getattr(tune.FeatureSearch, name), name, n_images)
            )

    def costing(self, real: Any, name: str, n_images: int) -> Any:
        def costly(search: Any, *words: Any) -> Any:
            part, way = words if name == "tried_once" else (words[1], words[0])
            self.now += self.COSTS[way[1]] * (len(part) / n_images) ** 2
            return real(search, *words)

        return costly


@pytest.mark.slow
def test_a_budget_holds_with_the_estimate_included(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = labelled(30, 2)
    features = {where(f"t{n}"): clouds(labels, 6, 0.4, n) for n in range(6)}
    ticking, spent, judged = Ticking(monkeypatch, len(labels)), [], []
    for budget in (None, 1000.0, 250.0, 110.0, 90.0, 60.0, 30.0, 20.0, 10.0):
        ticking.now = 0.0
        search = tune.FeatureSearch(features, labels, None, ("ridge", "kernel", "neighbours"), 0)
        found = tune._tuned(search, Clock(budget, 0.0), tune.CopySource(), ())
        spent.append((ticking.now, budget))
        judged.append(found.n_outer * found.repeats)
        assert found.n_outer >= 2 and len(found.picks) == judged[-1]
        assert bool(found.left_out) == (budget is not None and budget < spent[0][0])
    assert all(now <= 1.01 * budget for now, budget in spent if budget), spent
    assert all(now > 0.6 * budget for now, budget in spent[2:] if budget), (spent, judged)
    assert judged[:4] == [15, 15, 10, 4] and min(judged) >= 2


def test_only_training_images_are_looked_at(digits: Dataset) -> None:
    some = digits.subset(np.flatnonzero(np.isin(digits.labels, ["3", "8"]))[:150])
    splits = np.array(["train"] * 60 + ["val"] * 40 + ["test"] * 50)
    assert isinstance(some.images, ArrayImages)
    pixels, labels = some.images.pixels.copy(), some.labels.copy()
    pixels[60:] = 255 - pixels[60:]
    labels[60:] = labels[60:][::-1]
    options = Extraction(runtime="onnxruntime")
    first, second = (
        tune_features({"squish": open_source("pixels", one)}, one, heads=("ridge",), options=options)
        for one in (
            Dataset("d", some.images, some.labels, ("3", "8"), splits=splits),
            Dataset("d", ArrayImages(pixels), labels, ("3", "8"), splits=splits),
        )
    )
    assert replace(first, seconds=0.0) == replace(second, seconds=0.0) and first.n_images == 60


# --- what mattered


def test_a_setting_explains_what_its_means_vary_by() -> None:
    assert explained(["a", "b", "a", "b"], [0.0, 1.0, 0.0, 1.0]) == 1.0
    assert explained(["a", "a", "b", "b"], [0.0, 1.0, 0.0, 1.0]) == 0.0
    assert explained([], []) == explained(["a", "b"], [0.3, 0.3]) == 0.0
    # additive in two settings of a full table: the shares add up to all
    scores = [x + 3 * y for x in (0, 1) for y in (0, 1)]
    first = explained([0, 0, 1, 1], scores)
    assert first == pytest.approx(0.1) and explained([0, 1, 0, 1], scores) == pytest.approx(0.9)


def test_factors_name_what_was_varied_with_its_best_score() -> None:
    found = searched()
    factors = {one.name: one for one in found.factors}
    assert list(factors) == [one.name for one in sorted(found.factors, key=lambda one: -one.importance)]
    assert set(factors) == {"layer", "head", "strength of ridge", "strength of kernel"}
    layer = factors["layer"]
    assert layer.importance > 0.9 and not layer.log
    assert dict(zip(layer.values, layer.scores, strict=True))["middle"] == found.best.accuracy.value
    ridge = factors["strength of ridge"]
    assert ridge.log and list(ridge.values) == sorted(RidgeHead().strengths)
    best = [trial for trial in found.trials if trial.settled]
    assert factors["head"].importance == explained([o.head for o in best], [o.accuracy.value for o in best])


# --- where to read


def test_places_are_the_candidates_or_every_tap_below_the_last(digits: Dataset) -> None:
    spec = InputSpec(8, 8, 1)
    layers = {"maps": (32, 26, 26), "few": (8, 4, 4), "row": (9_000,), "hidden": (64,), "logits": (10,)}
    own = Source("s", b"", spec, layers, "hidden", "f")
    assert places_to_try(own) == [("hidden", "flat"), ("maps", "grid2"), ("few", "flat"), ("row", "flat")]
    named = replace(
        own, candidates=(("maps", "avg"), ("maps", "grid2"), ("hidden", "flat"), ("logits", "flat"))
    )
    assert places_to_try(named) == [
        ("hidden", "flat"), ("maps", "avg"), ("maps", "grid2"), ("logits", "flat")
    ]  # fmt: skip


# --- what is refused


@pytest.mark.parametrize(
    ("error", "said", "labels", "options"),
    [
        (DataError, r"class 'b' has 2 images, expected at least 3", "aaaaaabb", {}),
        (DataError, "1 class, 'a', expected at least 2", "aaaaaaaa", {}),
        (DataError, r"class 'a' has 2 groups, expected", "aaaabbbb", {"groups": list("xxyyxyzz")}),
        (SettingError, "head is 'rigde', expected one of", "aaaabbbb", {"heads": ["rigde"]}),
        (SettingError, "expected features and heads", "aaaabbbb", {"heads": []}),
        (SettingError, "expected features and heads", "", {}),
    ],
)
def test_what_cannot_be_searched_is_refused(
    error: type[Exception], said: str, labels: str, options: dict[str, Any]
) -> None:
    rows = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    if "groups" in options:
        options = {"groups": np.array(options["groups"])}
    with pytest.raises(error, match=said):
        tune_arrays({where("only"): rows} if labels else {}, names(labels or "aaaabbbb"), **options)


def names(text: str) -> Names:
    return np.array(list(text))


def test_a_class_with_three_images_is_enough() -> None:
    labels = names("aaabbbbbb")
    found = tune_arrays({where("only"): clouds(labels, 4, 5.0)}, labels)
    assert found.nested.value > 0.8 and found.n_outer == 3


def test_groups_that_run_out_inside_are_parted_by_image() -> None:
    """A fold may take two of the three writers of b: without it a single writer is left to part."""
    labels = np.repeat(["a", "b"], 18)
    groups = np.array([f"a{n % 6}" for n in range(18)] + [f"b{n % 3}" for n in range(18)])
    features = {where("only"): clouds(labels, 4, 5.0)}
    search = tune.FeatureSearch(features, labels, groups, ("ridge",), 0)
    alone = np.flatnonzero((labels == "a") | (groups == "b0"))
    assert search.cluster_codes(alone) is None  # b has one writer left
    assert search.cluster_codes(np.arange(36)) is not None
