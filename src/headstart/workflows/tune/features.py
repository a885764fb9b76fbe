"""The search over features: preparation, tap, pooling, head, strength and views, every combination of them.

In: a source under each preparation, and training images. Out: every trial, the best first; what mattered;
and an estimate of the whole search by nested cross-validation, since the best score of many flatters.
Must not import an engine or a graph: all is judged on features. Called by tunings and benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation
from headstart.data.splits import fewest_per_class, folds
from headstart.errors import DataError, SettingError, nearest
from headstart.evaluation.clusters import accuracy_score, paired
from headstart.evaluation.resampled import resampled_difference
from headstart.heads.base import calibrated_loss
from headstart.heads.held_out import best_setting
from headstart.heads.registry import SEARCHED, make_head
from headstart.heads.training import Training
from headstart.records import Array, Codes, Difference, Source
from headstart.sources.features import PLAIN, Extraction, View, extract_all
from headstart.strategies.select import alike, deciding_images
from headstart.system.threads import threads_for
from headstart.workflows.tune.clock import Clock
from headstart.workflows.tune.factors import explained, factors_of
from headstart.workflows.tune.records import NO_VIEWS, FeatureTrial, FeatureTuning, Rival, Way, Where

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

_OUTER = 5
_GLANCED = 16  # images by which two places are first compared
_FEW, _REPEATS = 50, 3  # up to so many images, ten outer folds or the smallest class, several times over
_VIEWED = 2  # places that are also tried with views: these cost an extraction each
_MOST_KERNEL_ROWS = 2_400  # images and views that an exact kernel is solved for at every fold
_MOST_FEATURES = 4_096  # of a tap that nobody named as worth trying
_POLICY_SHARE = 0.25  # of a budget, within which features of further preparations are computed
_LEAST_OUTER = 2  # outer folds that are always judged: one tells nothing of its own spread
_OUTER_COST = 0.85  # of a search of all images, without a fifth of them, at most
_FITS = 3  # that each outer fold needs at most

Indices = NDArray[np.intp]
Hits = NDArray[np.bool_]
Outer = list[list[tuple[Indices, Indices]]]
"""By repeat and fold: images to search and learn from, and images to be judged by."""


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
        Seconds for everything, the nested estimate included. What does not fit by the times measured so far
        is left out and named: preparations, combinations, views, outer folds. The first extraction, one
        combination and two outer folds are always done. Default: no limit, and then the same seed gives
        the same result.

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
    clock = Clock(budget_s)
    train = dataset if dataset.splits is None else dataset.split("train")
    some = train.subset(deciding_images(train.codes(), seed))
    features: dict[Where, Array] = {}
    left_out: list[str] = []
    for policy, source in sources.items():
        if features and not clock.fits(clock.dearest("extraction"), _POLICY_SHARE):
            left_out.append(f"preparation {policy} (for want of time)")
            continue
        places = places_to_try(source)
        with clock.timed("extraction"):
            rows = extract_all(some, source, places, options=options)
        new = _unlike(features, {Where(policy, *at): one for at, one in zip(places, rows, strict=True)})
        left_out += [] if new else [f"preparation {policy} (it changes nothing here)"]
        features |= new
    search = _Search(features, some.labels, some.together, tuple(heads), seed)
    wanted = augmentations or {}

    def views(name: str, places: Sequence[Where]) -> Mapping[Where, Sequence[Array]] | None:
        return _viewed(sources, some, places, wanted[name], seed, options, clock=clock)

    augments = {name: one.views for name, one in wanted.items()}
    return _tuned(search, clock, _Viewing(views, augments), tuple(left_out))


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
    learn from (Bates et al.), so intervals are those of `intervals.cross_validated`, by groups where given.

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
    return _tuned(search, Clock(), _Viewing(), ())


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


_Found = dict[FeatureTrial, Hits]


@dataclass(frozen=True)
class _Viewing:
    """Who computes features of views, None for want of time, and how many there are by augmentation."""

    rows_of: Callable[[str, Sequence[Where]], Mapping[Where, Sequence[Array]] | None] | None = None
    augments: Mapping[str, int] = field(default_factory=dict)


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
                    f"head is {head!r}, expected one of {', '.join(SEARCHED)}; {nearest(head, SEARCHED)}"
                )
        if not self.features or not self.heads:
            raise SettingError("there is nothing to choose from, expected features and heads; name some")
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
        found: _Found = {}
        for way in ways:
            found |= self.tried_once(part, way)
        return found

    def tried_once(self, part: Indices, way: Way) -> _Found:
        """Every setting of one way."""
        (where, head, augment), found = way, _Found()
        codes, together = self.codes[part], self.together(part)
        groups = None if self.groups is None else self.groups[part]
        rows, images = self.rows(where, augment, part)
        clusters = None if together is None else together[images]
        ones = np.ones(len(rows), np.float32)
        with threads_for(rows.size):
            held = make_head(head).held_out(Training(rows, codes[images], ones, images, self.seed, clusters))
        assert held is not None, "three images of each class leave two without an outer fold"
        settled = best_setting(held)
        for number, setting in enumerate(held.settings):
            hits = held.scores[number].argmax(axis=1) == codes
            score, loss = accuracy_score(hits, groups), calibrated_loss(held.logits[number], codes)
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


def _tuned(search: _Search, clock: Clock, viewing: _Viewing, left_out: tuple[str, ...]) -> FeatureTuning:
    """Search all images, then anew without each outer fold; what does not fit the budget is named."""
    outer = _outer_folds(search)
    parts = [np.arange(len(search.labels)), *(learn for repeat in outer for learn, _ in repeat)]
    plain = [(where, head, NO_VIEWS) for where in search.features for head in search.heads]
    found = [_within(search, parts[0], plain, clock)]
    ways = plain[: len(clock.costs["way"])]
    costs = dict(zip(ways, clock.costs["way"], strict=True))
    fitted = set(_ways(search, _ranked(found[0])).values())
    clock.costs["fits"] = [_OUTER_COST * sum(costs.get(way, clock.mean("way")) for way in fitted)]
    if len(ways) < len(plain):
        where, head, _ = plain[len(ways)]
        left_out += (
            f"{len(plain) - len(ways)} of {len(plain)} combinations of place and head, from {head} on "
            f"{where.tap}, {where.pooling}, {where.policy} on (for want of time)",
        )
    for part in parts[1:]:
        needed = clock.dearest("outer", 1) + len(found) * _fits(clock)
        if len(found) > _LEAST_OUTER and not clock.fits(needed):
            break
        with clock.timed("outer"):
            found.append(search.tried(part, ways))
    viewed = len(found) == len(parts) and _try_views(search, viewing, parts, found, clock)
    if not viewed:
        left_out += tuple(f"views {name} (for want of time)" for name in viewing.augments)
    hits, picks = _judged(search, outer, [_ranked(one) for one in found[1:]], clock)
    n_outer = len(parts) - 1
    if len(picks) < n_outer:
        outer = _first_folds(outer, len(picks))
        left_out += (f"{n_outer - len(picks)} of {n_outer} outer folds of the estimate (for want of time)",)
    judged = _Judged(outer, hits, picks[: sum(map(len, outer))])
    return _result(search, clock, found[0], judged, left_out)


class _Judged(NamedTuple):
    """The outer folds that were judged, who was right in them by name, and each one's winner."""

    outer: Outer
    hits: dict[str, Hits]
    picks: tuple[FeatureTrial, ...]


def _result(
    search: _Search, clock: Clock, found: _Found, judged: _Judged, left_out: tuple[str, ...]
) -> FeatureTuning:
    trials, (outer, hits, picks) = _ranked(found), judged
    asked = np.sort(np.concatenate([held for _, held in outer[0]]))
    known = {name: one[: len(outer), asked] for name, one in hits.items()}
    leads = {name: _lead(hits["tuned"], one, outer, search.groups) for name, one in hits.items()}
    tuned, groups = known.pop("tuned"), None if search.groups is None else search.groups[asked]
    runner_up = next((one for one in trials if _elsewhere(one, trials[0])), None)
    return FeatureTuning(
        trials,
        accuracy_score(tuned, groups, crossed=True),
        _spread(tuned),
        len(outer),
        len(outer[0]),
        len(search.labels),
        picks,
        tuple(
            Rival(name, accuracy_score(one, groups, crossed=True), _spread(one), leads[name])
            for name, one in known.items()
        ),
        runner_up,
        None if runner_up is None else paired(found[trials[0]], found[runner_up], search.groups),
        factors_of(trials),
        clock.elapsed_s,
        left_out,
    )


def _within(search: _Search, part: Indices, ways: Sequence[Way], clock: Clock) -> _Found:
    """Trials of as many ways as leave time to judge the search."""
    found: _Found = {}
    for way in ways:
        following = clock.dearest("way", len(search.heads))
        outer = _OUTER_COST * (clock.total("way") + following) + _fits(clock)
        if found and not clock.fits(following + _LEAST_OUTER * outer):
            break
        with clock.timed("way"):
            found |= search.tried_once(part, way)
    return found


def _fits(clock: Clock) -> float:
    """Seconds of the fits of one outer fold: as measured, or as those of the same ways, or of any."""
    known = clock.dearest("judging", 1) or clock.dearest("fits")
    return known or _OUTER_COST * _FITS * clock.mean("way")


def _first_folds(outer: Outer, n_folds: int) -> Outer:
    """Whole repeats as far as they go, else a part of the first."""
    repeats = n_folds // len(outer[0])
    return outer[:repeats] if repeats else [outer[0][:n_folds]]


def _try_views(
    search: _Search, viewing: _Viewing, parts: Sequence[Indices], found: Sequence[_Found], clock: Clock
) -> bool:
    """Add trials with views at each part's own best places; False, and nothing added, for want of time.

    The source sees every view once for all parts.
    """
    if viewing.rows_of is None or not viewing.augments:
        return True
    most, n_outer = len(search.labels) * (1 + max(viewing.augments.values())), len(parts) - 1
    short = [_shortlist(one, most) for one in found]
    wanted = list(dict.fromkeys(where for ways in short for where in ways))
    policies, judging = len({where.policy for where in wanted}), n_outer * _fits(clock)
    for name, n_views in viewing.augments.items():
        least = policies * n_views * clock.dearest("extraction")
        rows = viewing.rows_of(name, wanted) if clock.fits(least + judging) else None
        if rows is None:
            search.views.clear()
            return False
        search.views[name] = rows
    viewed: list[_Found] = []
    for part, ways in zip(parts, short, strict=True):
        rest = _OUTER_COST * (len(parts) - len(viewed)) * clock.dearest("views")
        if viewed and not clock.fits(rest + judging):
            search.views.clear()
            return False
        with clock.timed("views"):
            asked = [(where, head, name) for where, head in ways.items() for name in viewing.augments]
            viewed.append(search.tried(part, asked))
    for trials, more in zip(found, viewed, strict=True):
        trials.update(more)
    return True


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
    search: _Search, outer: Outer, rankings: Sequence[Sequence[FeatureTrial]], clock: Clock
) -> tuple[dict[str, Hits], tuple[FeatureTrial, ...]]:
    """Who was right on which image, (repeats, n_images): the search, less search, none; and its picks."""
    hits: dict[str, Hits] = {}
    picks: list[FeatureTrial] = []
    todo = [(number, *fold) for number, repeat in enumerate(outer) for fold in repeat]
    for (number, learn, held), ranking in zip(todo, rankings, strict=False):
        if len(picks) >= _LEAST_OUTER and not clock.fits(_fits(clock)):
            break
        known: dict[Way, Hits] = {}
        with clock.timed("judging"):
            for name, way in _ways(search, ranking).items():
                if way not in known:
                    known[way] = search.answered(way, learn, held)
                hits.setdefault(name, np.zeros((len(outer), len(search.labels)), np.bool_))
                hits[name][number, held] = known[way]
        hits.setdefault("majority", np.zeros((len(outer), len(search.labels)), np.bool_))
        commonest = np.bincount(search.codes[learn]).argmax()
        hits["majority"][number, held] = search.codes[held] == commonest
        picks.append(ranking[0])
    return hits, tuple(picks)


def _ways(search: _Search, ranking: Sequence[FeatureTrial]) -> dict[str, Way]:
    """What is fitted without one outer fold, by the name that tables show."""
    default = search.default
    ways = {"tuned": ranking[0].way}
    if search.views or any(where.policy != default.policy for where in search.features):
        at_home = (one for one in ranking if one.where.policy == default.policy and one.augment == NO_VIEWS)
        ways["default preparation"] = next(at_home).way
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
    *,
    clock: Clock,
) -> dict[Where, list[Array]] | None:
    """Features of every view at these places, one pass for each policy and view; None for want of time."""
    found: dict[Where, list[Array]] = {where: [] for where in places}
    policies = list(dict.fromkeys(where.policy for where in places))
    passes = [(policy, number) for policy in policies for number in range(augmentation.views)]
    for done, (policy, number) in enumerate(passes):
        if not clock.fits((len(passes) - done) * clock.dearest("view")):
            return None
        here = [where for where in places if where.policy == policy]
        with clock.timed("view"):
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


def _ranked(found: _Found) -> tuple[FeatureTrial, ...]:
    return tuple(sorted(found, key=lambda one: one.rank))


def _elsewhere(trial: FeatureTrial, best: FeatureTrial) -> bool:
    return (trial.where, trial.augment) != (best.where, best.augment)


def _spread(hits: Hits) -> float:
    return float(hits.mean(axis=1).std(ddof=1)) if len(hits) > 1 else 0.0


def _lead(hits: Hits, others: Hits, outer: Outer, groups: NDArray[np.generic] | None) -> Difference:
    """By how much one way beats another, over the outer folds; images of one cluster count as one."""
    gain = hits.astype(np.float64) - others  # (n_repeats, n_images)
    gains = [gain[n, held].mean() for n, repeat in enumerate(outer) for _, held in repeat]
    asked = [len(held) for _, held in outer[0]]
    n_asked = round(sum(asked) / len(asked))
    places = np.concatenate([held for _, held in outer[0]])
    n_units = len(places) if groups is None else len(np.unique(groups[places]))
    found = resampled_difference(np.array(gains), hits.shape[1] - n_asked, n_asked, n_units)
    return replace(found, n=sum(asked))


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
        raise DataError(f"labels has 1 class, {str(labels[0])!r}, expected at least 2; add images of another")
    if units[least] < 3:
        raise DataError(
            f"class {str(np.unique(labels)[least])!r} has {units[least]} {what}, expected at least 3 to tune: to "
            "learn from, to choose by and to judge by; add images, or leave the class out with a view"
        )
