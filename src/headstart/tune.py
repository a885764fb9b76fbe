"""The search over features: preparation, tap, pooling, head, strength and views, every combination of them.

In: a source under each preparation, and training images. Out: every trial, the best first; what mattered;
and an estimate of the whole search by nested cross-validation, since the best score of many flatters.
Must not import an engine or a graph: all is judged on features. Called by tunings and benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headstart._threads import threads_for
from headstart.choose import alike, deciding_images
from headstart.data.dataset import Dataset
from headstart.data.splits import fewest_per_class, folds
from headstart.errors import DataError, SettingError, nearest
from headstart.evaluation.compare import paired_difference
from headstart.evaluation.intervals import wilson
from headstart.evaluation.resampled import resampled_difference
from headstart.features import PLAIN, Extraction, View, extract_all
from headstart.heads.base import calibrated_loss
from headstart.heads.held_out import best_setting
from headstart.heads.registry import SEARCHED, make_head
from headstart.heads.training import Training
from headstart.imaging.augment import Augmentation
from headstart.records import Array, Codes, Difference, Factor, Score, Source

__all__ = [
    "NO_VIEWS",
    "FeatureTrial",
    "FeatureTuning",
    "Rival",
    "Where",
    "explained",
    "places_to_try",
    "tune_arrays",
    "tune_features",
]

NO_VIEWS = "none"
"""Name of the augmentation that is none."""

_OUTER = 5
_GLANCED = 16  # images by which two places are first compared
_FEW, _REPEATS = 50, 3  # up to so many images, ten outer folds or the smallest class, several times over
_VIEWED = 2  # places that are also tried with views: these cost an extraction each
_MOST_KERNEL_ROWS = 2_400  # images and views that an exact kernel is solved for at every fold
_MOST_FEATURES = 4_096  # of a tap that nobody named as worth trying
_POLICY_SHARE, _VIEW_SHARE = 0.25, 0.4  # of a budget, after which no policy is begun, and no views

Indices = NDArray[np.intp]
Hits = NDArray[np.bool_]
Outer = list[list[tuple[Indices, Indices]]]
"""By repeat and fold: images to search and learn from, and images to be judged by."""


class Where(NamedTuple):
    """How images are prepared, and where features are read."""

    policy: str
    tap: str
    pooling: str


@dataclass(frozen=True)
class FeatureTrial:
    """One combination, and how it did on images left out of its fit.

    ``error`` is the mean squared error of its held-out scores, ``loss`` their calibrated cross-entropy in
    nats. ``settled`` says that the head itself chooses this strength when it is fitted.
    """

    where: Where
    head: str
    strength: float
    augment: str
    accuracy: Score
    error: float
    loss: float
    settled: bool

    @property
    def title(self) -> str:
        """For tables and sentences."""
        views = "" if self.augment == NO_VIEWS else f", views {self.augment}"
        return f"{self.head} on {self.where.tap}, {self.where.pooling}, {self.where.policy}{views}"

    @property
    def rank(self) -> tuple[bool, float, float]:
        """Sorts the best first, among those whose strength is the head's own choice."""
        return (not self.settled, self.loss, -self.accuracy.value)


@dataclass(frozen=True)
class Rival:
    """A way with less search or none, on the same outer folds; ``lead`` is by how much tuning beats it.

    The lead's interval and p-value are those of the corrected resampled t-test.
    """

    name: str
    accuracy: Score
    spread: float
    lead: Difference


@dataclass(frozen=True)
class FeatureTuning:
    """What an exhaustive search found, and what it is worth.

    ``nested`` is the accuracy of the search itself: run again without each outer fold, its winner
    fitted and asked about that fold. The winner's own accuracy is the best of many, and flatters.
    ``picks`` are the winners without each outer fold. ``lead`` is the winner's over ``runner_up``, the best
    of another place, preparation or augmentation; both share the flattery. ``left_out`` names what was
    not tried, and why.
    """

    trials: tuple[FeatureTrial, ...]
    nested: Score
    spread: float
    repeats: int
    n_outer: int
    n_images: int
    picks: tuple[FeatureTrial, ...]
    rivals: tuple[Rival, ...]
    runner_up: FeatureTrial | None
    lead: Difference | None
    factors: tuple[Factor, ...]
    seconds: float
    left_out: tuple[str, ...] = ()

    @property
    def best(self) -> FeatureTrial:
        """The one to take."""
        return self.trials[0]

    @property
    def optimism(self) -> float:
        """By how much the winner's own accuracy is above the nested one (-1 to 1)."""
        return self.best.accuracy.value - self.nested.value


def tune_features(
    sources: Mapping[str, Source],
    dataset: Dataset,
    *,
    augmentations: Mapping[str, Augmentation] | None = None,
    heads: Sequence[str] = SEARCHED,
    seed: int = 0,
    options: Extraction = PLAIN,
    budget_s: float | None = None,
) -> FeatureTuning:
    """Try every preparation, tap, pooling, head and strength, and views of the best few places.

    Parameters
    ----------
    sources : mapping of str to Source
        The same source under each preparation policy; the first is what is taken without a search.
    dataset : Dataset
        Training images: with splits, only those of ``train`` are looked at. Of more than 1,500 a
        stratified part decides. Copies and groups (the dataset's clusters) stay together in folds.
    augmentations : mapping of str to Augmentation, optional
        Views to learn from, by name; images left out are always judged as they are.
    heads : sequence of str, default=('ridge', 'kernel', 'neighbours')
        Those whose left-out answers have a closed form.
    seed : int, default=0
        Decides folds and views.
    options : Extraction, optional
        Cache, runtime and precision.
    budget_s : float, optional
        Seconds, roughly: no further preparation is begun after a quarter of it, and no views after two
        fifths; what was left out is named. The nested estimate is always made. Default: no limit, and
        then the same seed gives the same result.

    Returns
    -------
    FeatureTuning
        About training images only.

    Raises
    ------
    SettingError, DataError, HeadstartError
        As in `tune_arrays` and ``features.extract_all``.

    Notes
    -----
    The source runs once over the images for every preparation, and once for every view.
    """
    begun = perf_counter()
    train = dataset if dataset.splits is None else dataset.split("train")
    some = train.subset(deciding_images(train.codes(), seed))
    features: dict[Where, Array] = {}
    left_out: list[str] = []
    for policy, source in sources.items():
        if features and budget_s is not None and perf_counter() - begun > _POLICY_SHARE * budget_s:
            left_out.append(f"preparation {policy} (for want of time)")
            continue
        places = places_to_try(source)
        rows = extract_all(some, source, places, options=options)
        new = _unlike(features, {Where(policy, *at): one for at, one in zip(places, rows, strict=True)})
        left_out += [] if new else [f"preparation {policy} (it changes nothing here)"]
        features |= new
    search = _Search(features, some.labels, some.together, tuple(heads), seed)
    wanted = augmentations or {}

    def views(name: str, places: Sequence[Where]) -> Mapping[Where, Sequence[Array]]:
        return _viewed(sources, some, places, wanted[name], seed, options)

    deadline = None if budget_s is None else begun + _VIEW_SHARE * budget_s
    augments = {name: one.views for name, one in wanted.items()}
    return _tuned(search, begun, _Viewing(views, augments, deadline), tuple(left_out))


def tune_arrays(
    features: Mapping[Where, Array],
    labels: NDArray[np.str_],
    *,
    groups: NDArray[np.generic] | None = None,
    heads: Sequence[str] = SEARCHED,
    seed: int = 0,
) -> FeatureTuning:
    """Try every head at every strength on features that are there already.

    Parameters
    ----------
    features : mapping of Where to ndarray of shape (n_images, n_features), float32
        Rows of the same images; the first place of the first policy is what is taken without a search.
    labels : ndarray of shape (n_images,), str
        Their classes, three images of each at least.
    groups : ndarray of shape (n_images,), str or int, optional
        Images that belong together; three groups of each class at least.
    heads : sequence of str, default=('ridge', 'kernel', 'neighbours')
        Those whose left-out answers have a closed form.
    seed : int, default=0
        Decides folds.

    Returns
    -------
    FeatureTuning
        Ranked by calibrated loss on images left out, then by accuracy.

    Raises
    ------
    SettingError
        If there is nothing to try, or a head cannot be judged so.
    DataError
        If a class has fewer than three images or groups.

    Notes
    -----
    Inside: one cluster left out at a time, exactly, with one decomposition for each place and head. Outside:
    5 folds, up to 50 images 10 folds (or the smallest class) three times over; the whole search is run again
    without each. Time is about that of 1 + 0.6 * n_outer * repeats searches. Outer folds share images to
    learn from, so an interval of their pooled answers is a little too narrow (Bates et al.).

    References
    ----------
    Cawley, Talbot. On Over-fitting in Model Selection and Subsequent Selection Bias in Performance
    Evaluation. Journal of Machine Learning Research 11 (2010).
    Varma, Simon. Bias in error estimation when using cross-validation for model selection. BMC
    Bioinformatics 7 (2006), doi:10.1186/1471-2105-7-91.
    Bates, Hastie, Tibshirani. Cross-validation: what does it estimate and how well does it do it? Journal
    of the American Statistical Association 119 (2024), arXiv:2104.00673.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> good = rng.normal(size=(60, 4)).astype(np.float32) + np.repeat([[0.0], [3.0]], 30, axis=0)
    >>> noise = rng.normal(size=(60, 4)).astype(np.float32)
    >>> tables = {Where("squish", "first", "avg"): noise, Where("squish", "last", "avg"): good}
    >>> found = tune_arrays(tables, np.repeat(["ant", "bee"], 30))
    >>> found.best.where.tap, found.nested.value > 0.9
    ('last', True)
    """
    search = _Search(dict(features), labels, groups, tuple(heads), seed)
    return _tuned(search, perf_counter(), _Viewing(), ())


def places_to_try(source: Source) -> list[tuple[str, str]]:
    """Where features of a source may be read: its candidates, or every tap below its last.

    Parameters
    ----------
    source : Source
        With or without candidates.

    Returns
    -------
    list of (tap, pooling)
        The default tap comes first. Without candidates, maps of more than 4,096 values are read in a grid.
    """
    default = source.default_tap
    if source.candidates:
        return sorted(source.candidates, key=lambda place: place[0] != default)
    found = [(default, "flat")]
    for tap in [name for name in list(source.taps)[:-1] if name != default]:
        small = len(source.taps[tap]) == 1 or prod(source.taps[tap]) <= _MOST_FEATURES
        found.append((tap, "flat" if small else "grid2"))
    return found


def explained(values: Sequence[object], scores: Sequence[float]) -> float:
    """Share of the variance of scores that one setting explains by itself.

    Parameters
    ----------
    values : sequence
        What the setting was in each trial.
    scores : sequence of float
        What the trial scored.

    Returns
    -------
    float
        The variance between the means for each value over the variance of all, 0 - 1; 0 where nothing
        varies. It is the main effect of a functional analysis of variance where all combinations were tried.

    References
    ----------
    Hutter, Hoos, Leyton-Brown. An Efficient Approach for Assessing Hyperparameter Importance. ICML 2014.

    Examples
    --------
    >>> explained(["a", "a", "b", "b"], [0.1, 0.3, 0.7, 0.9])
    0.9
    """
    marks = np.asarray(scores, np.float64)
    total = 0.0 if len(marks) < 2 else float(((marks - marks.mean()) ** 2).sum())
    if total <= 1e-18:  # rounding alone
        return 0.0
    between = 0.0
    for value in set(values):
        here = marks[[other == value for other in values]]
        between += len(here) * float(here.mean() - marks.mean()) ** 2
    return round(between / total, 12)


_Found = dict[FeatureTrial, Hits]
Way = tuple[Where, str, str]
"""Place, head and augmentation: what a fit depends on."""


@dataclass(frozen=True)
class _Viewing:
    """Who computes features of views, how many there are by augmentation, and until when it is begun."""

    rows_of: Callable[[str, Sequence[Where]], Mapping[Where, Sequence[Array]]] | None = None
    augments: Mapping[str, int] = field(default_factory=dict)
    deadline: float | None = None


@dataclass
class _Search:
    """What all parts of a search share: features of all images, and of their views by augmentation."""

    features: Mapping[Where, Array]
    labels: NDArray[np.str_]
    groups: NDArray[np.generic] | None
    heads: tuple[str, ...]
    seed: int
    views: dict[str, Mapping[Where, Sequence[Array]]] = field(default_factory=dict)
    codes: Codes = field(init=False)

    def __post_init__(self) -> None:
        self.codes = np.unique(self.labels, return_inverse=True)[1].astype(np.int64)
        for head in self.heads:
            if head not in SEARCHED:
                raise SettingError(
                    f"head is {head!r}, need one of {', '.join(SEARCHED)}; {nearest(head, SEARCHED)}"
                )
        if not self.features or not self.heads:
            raise SettingError("there is nothing to choose from, need features and heads; name some")
        _check_three(self.labels, self.codes, self.groups)

    @property
    def default(self) -> Where:
        """Where a user who searches nothing would read."""
        return next(iter(self.features))

    def rows(self, where: Where, augment: str, part: Indices) -> tuple[Array, Indices]:
        """Features of images, then of each of their views; and which image each row shows."""
        plain = np.asarray(self.features[where][part], np.float32)
        if augment == NO_VIEWS:
            return plain, np.arange(len(part))
        views = [np.asarray(one[part], np.float32) for one in self.views[augment][where]]
        return np.concatenate([plain, *views]), np.tile(np.arange(len(part)), 1 + len(views))

    def together(self, part: Indices) -> NDArray[np.intp] | None:
        """Which of some images stay together; None where a class would have one group left."""
        if self.groups is None:
            return None
        units = np.unique(self.groups[part], return_inverse=True)[1]
        return units if fewest_per_class(self.codes[part], units) > 1 else None

    def tried(self, part: Indices, ways: Iterable[Way]) -> _Found:
        """Every setting of every way on some images: who was right when left out."""
        codes, together = self.codes[part], self.together(part)
        found: _Found = {}
        for where, head, augment in ways:
            rows, images = self.rows(where, augment, part)
            clusters = None if together is None else together[images]
            ones = np.ones(len(rows), np.float32)
            with threads_for(rows.size):
                held = make_head(head).held_out(
                    Training(rows, codes[images], ones, images, self.seed, clusters)
                )
            assert held is not None, "three images of each class leave two without an outer fold"
            settled = best_setting(held)
            for number, setting in enumerate(held.settings):
                hits = held.scores[number].argmax(axis=1) == codes
                score, loss = wilson(int(hits.sum()), len(codes)), calibrated_loss(held.logits[number], codes)
                strength, error = next(iter(setting.values())), float(held.errors[number])
                trial = FeatureTrial(where, head, strength, augment, score, error, loss, number == settled)
                found[trial] = hits
        return found

    def answered(self, way: Way, learn: Indices, held: Indices) -> Hits:
        """Fit as the command line would, and answer images that the search did not see."""
        where, head, augment = way
        rows, images = self.rows(where, augment, learn)
        together = self.together(learn)
        fitted = make_head(head).fit(
            rows,
            self.labels[learn][images],
            images=images,
            clusters=None if together is None else together[images],
            seed=self.seed,
        )
        return np.asarray(fitted.predict(self.features[where][held]) == self.labels[held])


def _tuned(search: _Search, begun: float, viewing: _Viewing, left_out: tuple[str, ...]) -> FeatureTuning:
    """Search all images, then anew without each outer fold."""
    n_images, outer = len(search.labels), _outer_folds(search)
    parts = [np.arange(n_images), *(learn for repeat in outer for learn, _ in repeat)]
    plain = [(where, head, NO_VIEWS) for where in search.features for head in search.heads]
    found = [search.tried(parts[0], plain)]
    if viewing.deadline is not None and perf_counter() > viewing.deadline:
        left_out += tuple(f"views {name} (for want of time)" for name in viewing.augments)
        viewing = _Viewing()
    found += [search.tried(part, plain) for part in parts[1:]]
    _try_views(search, viewing, parts, found)
    trials = _ranked(found[0])
    hits, picks = _judged(search, outer, [_ranked(one) for one in found[1:]])
    runner_up = next((one for one in trials if _elsewhere(one, trials[0])), None)
    tuned = hits.pop("tuned")
    return FeatureTuning(
        trials,
        _score(tuned),
        _spread(tuned),
        len(outer),
        len(outer[0]),
        n_images,
        picks,
        tuple(Rival(name, _score(one), _spread(one), _lead(tuned, one, outer)) for name, one in hits.items()),
        runner_up,
        None if runner_up is None else paired_difference(found[0][trials[0]], found[0][runner_up]),
        _factors(trials),
        perf_counter() - begun,
        left_out,
    )


def _try_views(search: _Search, viewing: _Viewing, parts: Sequence[Indices], found: Sequence[_Found]) -> None:
    """Add trials with views at each part's own best places; the source sees every view once for all parts."""
    if viewing.rows_of is None or not viewing.augments:
        return
    most = len(search.labels) * (1 + max(viewing.augments.values()))
    short = [_shortlist(one, most) for one in found]
    wanted = list(dict.fromkeys(where for ways in short for where in ways))
    for name in viewing.augments:
        search.views[name] = viewing.rows_of(name, wanted)
    for part, trials, ways in zip(parts, found, short, strict=True):
        viewed = [(where, head, name) for where, head in ways.items() for name in viewing.augments]
        trials.update(search.tried(part, viewed))


def _shortlist(found: _Found, most_rows: int) -> dict[Where, str]:
    """The best places, each with its best head: of many rows not the kernel, whose cost is their cube."""
    short: dict[Where, str] = {}
    for trial in _ranked(found):
        if trial.head == "kernel" and most_rows > _MOST_KERNEL_ROWS:
            continue
        if len(short) < _VIEWED:
            short.setdefault(trial.where, trial.head)
    return short


def _judged(
    search: _Search, outer: Outer, rankings: Sequence[Sequence[FeatureTrial]]
) -> tuple[dict[str, Hits], tuple[FeatureTrial, ...]]:
    """Who was right on which image, (repeats, n_images): the search, less search, none; and its picks."""
    hits: dict[str, Hits] = {}
    todo = iter(rankings)
    for number, repeat in enumerate(outer):
        for learn, held in repeat:
            known: dict[Way, Hits] = {}
            for name, way in _ways(search, next(todo)).items():
                if way not in known:
                    known[way] = search.answered(way, learn, held)
                hits.setdefault(name, np.zeros((len(outer), len(search.labels)), np.bool_))
                hits[name][number, held] = known[way]
            hits.setdefault("majority", np.zeros((len(outer), len(search.labels)), np.bool_))
            commonest = np.bincount(search.codes[learn]).argmax()
            hits["majority"][number, held] = search.codes[held] == commonest
    return hits, tuple(ranking[0] for ranking in rankings)


def _ways(search: _Search, ranking: Sequence[FeatureTrial]) -> dict[str, Way]:
    """What is fitted without one outer fold, by the name that tables show."""
    default = search.default
    ways = {"tuned": _way(ranking[0])}
    if search.views or any(where.policy != default.policy for where in search.features):
        at_home = (one for one in ranking if one.where.policy == default.policy and one.augment == NO_VIEWS)
        ways["default preparation"] = _way(next(at_home))
    plain = "ridge" if "ridge" in search.heads else search.heads[0]
    return {**ways, "nothing chosen": (default, plain, NO_VIEWS)}


def _outer_folds(search: _Search) -> Outer:
    """Folds of which nothing is known while the search runs; several times over where images are few."""
    few = len(search.labels) <= _FEW
    k = _n_folds(search.codes, search.groups, 2 * _OUTER if few else _OUTER)
    return [
        folds(search.labels, k, np.random.default_rng([search.seed, 5, number]), search.groups)
        for number in range(_REPEATS if few else 1)
    ]


def _viewed(
    sources: Mapping[str, Source],
    dataset: Dataset,
    places: Sequence[Where],
    augmentation: Augmentation,
    seed: int,
    options: Extraction,
) -> dict[Where, list[Array]]:
    """Features of every view at these places, one pass over the images for each policy and view."""
    found: dict[Where, list[Array]] = {where: [] for where in places}
    for policy in dict.fromkeys(where.policy for where in places):
        here = [where for where in places if where.policy == policy]
        for number in range(augmentation.views):
            rows = extract_all(
                dataset,
                sources[policy],
                [(where.tap, where.pooling) for where in here],
                view=View(augmentation, seed, number),
                options=options,
            )
            for where, one in zip(here, rows, strict=True):
                found[where].append(one)
    return found


def _factors(trials: Sequence[FeatureTrial]) -> tuple[Factor, ...]:
    """What mattered, the most first: each setting over the trials in which it was varied.

    Preparation, tap, pooling, head and views are compared at their best strength: what a user who
    leaves strengths to the head would see. A strength is compared within its head.
    """
    plain = [one for one in trials if one.augment == NO_VIEWS]
    settled = _settled(plain)
    viewed = {(one.where, one.head) for one in trials if one.augment != NO_VIEWS}
    both = _settled([one for one in trials if (one.where, one.head) in viewed])
    found = [
        _factor("preparation", settled, lambda one: one.where.policy),
        _factor("tap", settled, lambda one: one.where.tap),
        _factor("pooling", settled, lambda one: one.where.pooling),
        _factor("head", settled, lambda one: one.head),
        _factor("views", both, lambda one: one.augment),
    ]
    for head in dict.fromkeys(one.head for one in plain):
        what = "neighbours" if head == "neighbours" else f"strength of {head}"
        found.append(_factor(what, [one for one in plain if one.head == head], lambda one: one.strength))
    varied = [one for one in found if len(one.values) > 1]
    return tuple(sorted(varied, key=lambda one: -one.importance))


def _factor(
    name: str, trials: Sequence[FeatureTrial], value_of: Callable[[FeatureTrial], str | float]
) -> Factor:
    """A setting's share, and the best score that was had with each of its values."""
    values = [value_of(one) for one in trials]
    scores = [one.accuracy.value for one in trials]
    distinct = list(dict.fromkeys(values))
    numbers = all(isinstance(value, float) for value in distinct)
    if numbers:
        distinct.sort()
    best = tuple(max(s for v, s in zip(values, scores, strict=True) if v == value) for value in distinct)
    return Factor(name, explained(values, scores), tuple(distinct), best, numbers and bool(distinct))


def _settled(trials: Sequence[FeatureTrial]) -> list[FeatureTrial]:
    """The best strength of each way."""
    best: dict[Way, FeatureTrial] = {}
    for trial in sorted(trials, key=lambda one: one.rank):
        best.setdefault(_way(trial), trial)
    return list(best.values())


def _ranked(found: _Found) -> tuple[FeatureTrial, ...]:
    return tuple(sorted(found, key=lambda one: one.rank))


def _way(trial: FeatureTrial) -> Way:
    return trial.where, trial.head, trial.augment


def _elsewhere(trial: FeatureTrial, best: FeatureTrial) -> bool:
    return (trial.where, trial.augment) != (best.where, best.augment)


def _score(hits: Hits) -> Score:
    return wilson(float(hits.mean(axis=0).sum()), hits.shape[1])


def _spread(hits: Hits) -> float:
    return float(hits.mean(axis=1).std(ddof=1)) if len(hits) > 1 else 0.0


def _lead(hits: Hits, others: Hits, outer: Outer) -> Difference:
    """By how much one way beats another, over the outer folds."""
    gain = hits.astype(np.float64) - others  # (n_repeats, n_images)
    gains = [gain[n, held].mean() for n, repeat in enumerate(outer) for _, held in repeat]
    n_images, n_asked = hits.shape[1], round(hits.shape[1] / len(outer[0]))
    return resampled_difference(np.array(gains), n_images - n_asked, n_asked, n_images)


def _unlike(known: Mapping[Where, Array], new: Mapping[Where, Array]) -> dict[Where, Array]:
    """Those of the new features that are not there already under another name."""
    kept: dict[Where, Array] = {}
    for where, rows in new.items():
        others = (*known.values(), *kept.values())
        if not any(alike(rows[:_GLANCED], one[:_GLANCED]) and alike(rows, one) for one in others):
            kept[where] = rows
    return kept


def _n_folds(codes: Codes, groups: NDArray[np.generic] | None, most: int) -> int:
    """As many as wanted and as the smallest class has images, or groups."""
    return max(2, min(most, *_units(codes, groups)))


def _units(codes: Codes, groups: NDArray[np.generic] | None) -> list[int]:
    """How many images, or groups, each class has."""
    counts = np.bincount(codes)
    if groups is None:
        return [int(count) for count in counts[counts > 0]]
    return [len(np.unique(groups[codes == code])) for code in np.flatnonzero(counts)]


def _check_three(labels: NDArray[np.str_], codes: Codes, groups: NDArray[np.generic] | None) -> None:
    """One to judge the search by, one to judge its trials by, one to learn from."""
    units, what = _units(codes, groups), "image(s)" if groups is None else "group(s)"
    least = int(np.argmin(units))
    if len(units) < 2:
        raise DataError(f"labels has 1 class, {str(labels[0])!r}, need at least 2; add images of another")
    if units[least] < 3:
        raise DataError(
            f"class {str(np.unique(labels)[least])!r} has {units[least]} {what}, need at least 3 to tune: to "
            "learn from, to choose by and to judge by; add images, or leave the class out with a view"
        )
