"""A study as a user asks for it: examine the data, choose the protocol, run probe and controls, report.

In: a source, datasets, what is wanted. Out: a StudyResult. Must not import an engine at the top: the one
control that trains a network asks the registry for it. Called by the command line, recipes and the face.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from time import perf_counter, strftime

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.doctor import Checkup
from headstart.data.checks.refuse import checked, refuse_shared
from headstart.data.dataset import Dataset, check_same_classes
from headstart.data.images.augment import flip_warning
from headstart.data.images.prepare import prepare
from headstart.data.images.thumbnails import examples_of
from headstart.data.names import listed
from headstart.data.stores import ArrayImages
from headstart.data.subsets import subset_map
from headstart.errors import DataError, SettingError, UnknownViewError, nearest
from headstart.evaluation.calibration import reliability
from headstart.evaluation.metrics import evaluate
from headstart.graph import run as runtime
from headstart.heads.base import Head
from headstart.models.model import Model
from headstart.networks.specs import architecture
from headstart.records import (
    Array,
    Evaluation,
    Images,
    NetworkSpec,
    Source,
    StudyResult,
    TrainSettings,
)
from headstart.sources.features import PLAIN, Extraction, Place, feature_graph
from headstart.sources.registry import native_input, open_source, random_source
from headstart.strategies.finetune.decide import OPENED, Finetuner, opened_strategies, sentence_of
from headstart.strategies.finetune.options import Opening, parse_strategies
from headstart.strategies.fits import Chooser, Reader, Strategy, chosen_probe, fitted, redrawn_probe
from headstart.strategies.learn import CHOSEN, Probe, places_of
from headstart.strategies.provenance import about_source, made_with
from headstart.workflows.feature_map import feature_scatter
from headstart.workflows.gallery import Judged, galleries
from headstart.workflows.study.baselines import frames_for, network_from_scratch, raw_pixels
from headstart.workflows.study.controls import collapse, majority
from headstart.workflows.study.protocol import Judging, Protocol, decide
from headstart.workflows.study.table import FINETUNE, PROBE, Table, run_table
from headstart.workflows.transfer.run import short_name

__all__ = ["CONTROLS", "Wanted", "parse_controls", "parse_labels", "run_study"]

CONTROLS = ("majority", "raw pixels", "random frozen", "scratch", "collapse")
"""What transfer has to beat. ``collapse`` stands only where the source's own classes answer the question."""

_ROUNDING = 1e-9
_BESIDE = 2_000  # images up to which the control from scratch trains in other processes, a core each
_SMALL_PX = 64  # side up to which raw pixels are what the source sees
_PICTURES = 12  # more than a gallery shows
_NETWORKS, _SMALL_NETWORKS = 5, 10  # random ones, where one round would draw one; small ones cost little
_BUDGETS = (1, 5, 10, 50)
_SCRATCH = TrainSettings(epochs=12, min_steps=150, batch_size=32, learning_rate=3e-3, schedule="one-cycle")
_SCRATCH_OTHERS = (
    replace(_SCRATCH, learning_rate=1e-3, epochs=24, min_steps=400),
    replace(_SCRATCH, epochs=24, min_steps=600),
)
"""Settings that the control from scratch may choose instead, each in the sense of `TrainSettings`."""
_SCRATCH_FEW = replace(_SCRATCH, epochs=1, min_steps=100)


@dataclass(frozen=True)
class Wanted:
    """What a study is asked for, beside source and data; what is None is by rule.

    ``kind`` is the protocol's; ``labels_per_class`` the budgets of the learning curve, () for none;
    ``with_all`` adds all labels; ``controls`` some of `CONTROLS`. ``extra`` are strategies to show or
    to compare with, made for the judging: they are controls, but for those named in ``shown``.
    ``spec`` is the network that is trained from scratch, ``scratch`` how (with all labels, with few).
    ``opening`` asks for the strategy finetune, and says how.
    """

    probe: Probe = CHOSEN
    kind: str | None = None
    labels_per_class: tuple[int, ...] | None = None
    with_all: bool = True
    draws: int = 5
    controls: tuple[str, ...] = CONTROLS
    allow_leaks: bool = False
    seed: int = 0
    extra: Mapping[str, Callable[[Judging], Strategy]] = field(default_factory=dict)
    shown: tuple[str, ...] = ()
    spec: NetworkSpec | None = None
    scratch: tuple[TrainSettings, TrainSettings] = (_SCRATCH, _SCRATCH_FEW)
    opening: Opening | None = None


@dataclass(frozen=True)
class _Study:
    """One study under way; ``plain`` reads images as they are, ``reader`` as the source prepares them."""

    source: Source
    trained: Model | None
    wanted: Wanted
    judging: Judging
    reader: Reader
    plain: Reader
    chooser: Chooser
    options: Extraction
    finetuner: Finetuner | None = None


def run_study(
    source: Source,
    dataset: Dataset,
    wanted: Wanted = Wanted(),
    *,
    external: Dataset | None = None,
    trained: Model | None = None,
    options: Extraction = PLAIN,
    title: str = "",
    summary: str = "",
    command: str = "",
) -> StudyResult:
    """Find out whether transfer was worth it, and how far one may trust the answer.

    Parameters
    ----------
    source : Source
        Frozen.
    dataset : Dataset
        What to learn; its splits are used as the protocol says.
    wanted : Wanted, optional
        Protocol, budgets, controls, and what of the probe is given; the rest is chosen anew from
        whatever images a fit learns from, so that no figure flatters.
    external : Dataset, optional
        A test set of its own.
    trained : Model, optional
        The source as a model: its layers are the ones trained from scratch, its answers are what
        collapse reads.
    options : Extraction, optional
        Cache, runtime and precision.
    title, summary : str, optional
        For the report. Default: made from the names.
    command : str, default=''
        What the user typed, for the report.

    Returns
    -------
    StudyResult
        Every number in it was judged on images that the model it is about did not learn from.

    Raises
    ------
    HeadstartError
        Of the kind that fits; a leak before any number is computed.
    """
    begun = perf_counter()
    _check_controls(wanted.controls)
    dataset, found = _examined(dataset, external, wanted)
    protocol = Protocol(
        _BUDGETS if wanted.labels_per_class is None else tuple(sorted(set(wanted.labels_per_class))),
        wanted.draws,
        wanted.seed,
        wanted.with_all,
        (*wanted.shown, *OPENED),
        redrawn=("random frozen",),
        pairs=((FINETUNE, PROBE), (FINETUNE, "scratch")),
        networks=_NETWORKS if source.name.startswith("timm:") else _SMALL_NETWORKS,
    )
    judging = decide(dataset, external, kind=wanted.kind, protocol=protocol)
    if wanted.labels_per_class is None and judging.protocol.kind == "leave-one-out":
        # a fit for each image leaves no time for a curve
        judging = replace(judging, protocol=replace(judging.protocol, labels_per_class=()))
    ready = _prepared(judging, source)
    frame = source.input if ready is judging else replace(source.input, policy="squish")
    framed = replace(source, input=frame)
    reader = Reader(framed, ready.pool, ready.asked, options, wanted.probe.augmentation, wanted.seed)
    chooser = Chooser(reader, wanted.probe)
    finetuner = None
    if wanted.opening is not None:
        finetuner = Finetuner(reader, chooser, wanted.opening, options.progress)
    plain = replace(reader, source=source, pool=judging.pool, asked=judging.asked, _kept={}, _viewed={})
    study = _Study(source, trained, wanted, judging, reader, plain, chooser, options, finetuner)
    strategies, left_out = _strategies(study)
    table = run_table(
        strategies,
        judging.pool,
        judging.asked,
        judging.protocol,
        progress=options.progress,
        beside=("scratch",) if len(judging.pool) <= _BESIDE else (),
    )
    said = [] if finetuner is None else [sentence_of(finetuner.decisions)]
    result = _result(study, table, (*said, *left_out, *_warnings(dataset, wanted)), found)
    return replace(
        result,
        title=title or f"{short_name(source.name)} to {dataset.name}",
        summary=summary or _summary(study),
        facts=_facts(study, dataset, command, perf_counter() - begun),
    )


def parse_controls(text: str, strategies: str = "probe") -> tuple[str, ...]:
    """Read which controls are wanted; scratch may also be asked for as the strategy that it is.

    Parameters
    ----------
    text : str
        ``all``, ``none``, or names between commas.
    strategies : str, default='probe'
        As `opening.parse_strategies` takes them.

    Returns
    -------
    tuple of str

    Raises
    ------
    SettingError
        If a name is unknown.

    Examples
    --------
    >>> parse_controls("none", "probe,scratch"), parse_controls("majority")
    (('scratch',), ('majority',))
    """
    named = tuple(name for part in text.split(",") if (name := part.strip()))
    chosen = {"all": CONTROLS, "none": ()}.get(text, named)
    _check_controls(chosen)
    also = "scratch" in parse_strategies(strategies) and "scratch" not in chosen
    return (*chosen, "scratch") if also else chosen


def _check_controls(names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in CONTROLS]
    if unknown:
        raise SettingError(
            f"control is {unknown[0]!r}, need one of {', '.join(CONTROLS)}; {nearest(unknown[0], CONTROLS)}"
        )


def parse_labels(text: str | None) -> tuple[tuple[int, ...] | None, bool]:
    """Read the budgets of a learning curve.

    Parameters
    ----------
    text : str or None
        Numbers of labels per class between commas, and ``all``.

    Returns
    -------
    budgets : tuple of int or None
        None where nothing was said: by rule.
    with_all : bool
        Whether all labels are a budget too.

    Raises
    ------
    SettingError
        If something is neither.

    Examples
    --------
    >>> parse_labels("5, 10"), parse_labels("all"), parse_labels(None)
    (((5, 10), False), ((), True), (None, True))
    """
    if text is None:
        return None, True
    words = [word.strip() for word in text.split(",") if word.strip()]
    numbers = [word for word in words if word != "all"]
    if not words or not all(word.isdecimal() and int(word) >= 1 for word in numbers):
        raise SettingError(
            f"labels is {text!r}, need whole numbers of at least 1, and all; such as 1,5,10,all"
        )
    return tuple(sorted({int(word) for word in numbers})), "all" in words


def _prepared(judging: Judging, source: Source) -> Judging:
    """Images in files, for a source of small images: prepared once for it and for its random twins."""
    pool, asked, spec = judging.pool, judging.asked, source.input
    if pool.images.paths is None or spec.height_px > _SMALL_PX:
        return judging
    fit_pool = replace(pool, images=ArrayImages(prepare(pool, spec)))
    fit_asked = fit_pool if asked is pool else replace(asked, images=ArrayImages(prepare(asked, spec)))
    return replace(judging, pool=fit_pool, asked=fit_asked)


def _examined(dataset: Dataset, external: Dataset | None, wanted: Wanted) -> tuple[Dataset, Checkup]:
    """The dataset with its clusters, and the doctor's findings; refuse what cannot be judged."""
    dataset, found = checked(dataset, allow_leaks=wanted.allow_leaks)
    if external is None:
        return dataset, found
    check_same_classes(dataset, external)
    absent = [name for name in dataset.classes if name not in set(external.labels.tolist())]
    if absent:
        said = f"{external.name} has no image of {listed(absent)}: it judges the other classes only"
        found = replace(found, remarks=(said, *found.remarks))
    return dataset, refuse_shared(dataset, external, found, allow_leaks=wanted.allow_leaks)


def _strategies(study: _Study) -> tuple[dict[str, Strategy], list[str]]:
    """The probe, its controls, and why some control is missing."""
    wanted, judging, source = study.wanted, study.judging, study.reader.source
    pool, asked = study.plain.pool, study.plain.asked
    frames = frames_for(pool, study.plain.source.input)
    strategies: dict[str, Strategy] = {PROBE: chosen_probe(study.reader, wanted.probe, study.chooser)}
    strategies |= {name: make(judging) for name, make in wanted.extra.items()}
    if study.finetuner is not None:
        strategies |= opened_strategies(study.finetuner)
    remarks = []
    if "scratch" in wanted.controls:
        spec, engine, remark = _scratch_network(study)
        remarks += [remark] if remark else []
        strategies["scratch"] = network_from_scratch(
            spec,
            engine,
            wanted.scratch,
            pool,
            asked,
            wanted.probe.augmentation,
            frames=frames if spec.input in frames else (spec.input, *frames),
            alternatives=_SCRATCH_OTHERS,
        )
    drawn = _drawn(study) if "random frozen" in wanted.controls else None
    if drawn is not None:
        strategies["random frozen"] = redrawn_probe(drawn, wanted.probe, study.chooser)
    elif "random frozen" in wanted.controls and source.name != "pixels":
        remarks.append(
            "The control random frozen is left out: the layers of this source are not known, so it cannot "
            "be given random weights."
        )
    if "raw pixels" in wanted.controls and source.name != "pixels":
        strategies["raw pixels"] = raw_pixels(study.plain, frames=frames, balance=wanted.probe.balance)
    if "collapse" in wanted.controls and (read := _collapse(study)) is not None:
        strategies["collapse"] = read
    if "majority" in wanted.controls:
        strategies["majority"] = majority(pool, whole=judging.protocol.crossed)
    return strategies, remarks


def _scratch_network(study: _Study) -> tuple[NetworkSpec, str, str]:
    """The network to train from nothing, who trains it, and what a reader must know of that."""
    spec, remark = study.wanted.spec or _own_network(study, study.plain), ""
    if spec is None:
        spec = architecture("cnn", native_input(study.plain.pool), 2)
        remark = (
            "From scratch is a small convolutional network (28 x 28 px): the source's own has too many "
            "weights to learn from so few images in a sensible time."
        )
    if find_spec("torch") is not None:
        return spec, "torch", remark
    said = "From scratch is trained by the NumPy engine, because torch is not installed."
    return spec, "scratch", f"{remark} {said}".strip()


def _own_network(study: _Study, reader: Reader) -> NetworkSpec | None:
    """The layers of the source, for images as a reader prepares them; None where they are not ours."""
    if study.source.network is None:
        return None
    spec, policy = study.source.network[0], reader.source.input.policy
    return replace(spec, input=replace(spec.input, policy=policy))


def _drawn(study: _Study) -> Callable[[int], Reader] | None:
    """Readers of the source's network with random weights, by seed; None where it has no network."""
    source, wanted = study.reader.source, study.wanted
    spec = wanted.spec or _own_network(study, study.reader)

    def reader(seed: int) -> Reader:
        if spec is not None:
            drawn = random_source(spec, seed)
        else:
            drawn = open_source(f"random:{source.name}", study.reader.pool, seed, source.notes["size_px"])
        drawn = replace(drawn, input=replace(drawn.input, policy=source.input.policy))
        return replace(study.reader, source=drawn, _kept={})

    return reader if spec is not None or source.name.startswith("timm:") else None


def _collapse(study: _Study) -> Strategy | None:
    """The answer read off the source's own classes, where a view says which belongs to which."""
    own, asked = study.trained, study.judging.asked
    _, colon, view = asked.name.rpartition(":")
    if own is None or not colon or own.manifest.strategy != "scratch":
        return None
    try:
        told = subset_map(own.classes, view)
    except (UnknownViewError, DataError):
        return None
    classes = study.judging.pool.classes
    if None in told.values() or set(told.values()) != set(classes) or set(own.classes) == set(classes):
        return None
    probs = own.probabilities(asked, runtime_name=study.options.runtime)
    return collapse(probs, own.classes, view, classes)


def _warnings(dataset: Dataset, wanted: Wanted) -> list[str]:
    augmentation = wanted.probe.augmentation
    said = None if augmentation is None else flip_warning(dataset.classes, augmentation)
    return [said] if said else []


def _result(study: _Study, table: Table, remarks: tuple[str, ...], found: Checkup) -> StudyResult:
    """All of the report but its title and facts."""
    judging, assessed = study.judging, study.judging.asked
    assert table.answers is not None, "there are images to answer"
    codes, classes = assessed.codes(judging.pool.classes), judging.pool.classes
    title = f"The probe on the {judging.judged_on} images of {assessed.name}"
    judged = Judged(assessed, table.answers, codes, classes, study.source.input)
    place, head = _explaining(study, judged)
    judged = replace(judged, ask=_asking(study, place, head))
    study.options.progress.step("looking at the answers", 0, 1)
    sizes = {"learnt from": len(judging.pool), judging.judged_on: len(assessed), "classes": len(classes)}
    return StudyResult(
        title=title,
        summary="",
        verdict=f"{table.verdict} {_attained(table, judging)}",
        remarks=(*table.remarks, *remarks),
        rows=table.rows,
        comparisons=table.comparisons,
        evaluations=(_evaluated(title, study, table, codes),),
        curves=(),
        facts={},
        sizes=sizes,
        examples=examples_of(judging.pool),
        judged_on=judging.judged_on,
        protocol=judging.sentence + _nested(study),
        findings=found.remarks,
        calibrations=(reliability("How far its probabilities can be believed", table.answers, codes),),
        galleries=galleries(judged),
        scatters=(
            feature_scatter(
                f"Features at {place[0]}, {place[1]}",
                study.reader.answers(place),
                codes,
                classes,
                ~judged.wrong,
                seed=study.wanted.seed,
            ),
        ),
    )


def _attained(table: Table, judging: Judging) -> str:
    """What the probe gets right with the most labels, whether or not it beats anything."""
    best = [row.accuracy for row in table.rows if row.strategy == PROBE][-1]
    return (
        f"The probe gets {best.value:.1%} of the {best.n:,} {judging.judged_on} images right "
        f"[{100 * best.low:.1f}, {100 * best.high:.1f}]."
    )


def _evaluated(title: str, study: _Study, table: Table, codes: NDArray[np.int64]) -> Evaluation:
    """The answers in detail; where images come in groups, accuracy keeps the interval that counts them."""
    assert table.answers is not None, "there are images to answer"
    classes = study.judging.pool.classes
    found = evaluate(title, table.answers, codes, classes, study.wanted.seed)
    ours = [row.accuracy for row in table.rows if row.strategy == PROBE][-1]
    same = abs(ours.value - found.accuracy.value) < _ROUNDING
    return replace(found, accuracy=ours) if same else found


def _nested(study: _Study) -> str:
    """Say that a choice was made anew inside every fit, where there was one."""
    _, heads, _ = places_of(study.source, study.wanted.probe)
    if not heads:
        return ""
    return (
        " Tap, pooling and head were chosen anew, by inner cross-validation, from whatever a fit learnt from."
    )


def _explaining(study: _Study, judged: Judged) -> tuple[Place, Head]:
    """A head to draw maps with: of images judged by themselves it has not seen those that are shown."""
    judging, probe, seed = study.judging, study.wanted.probe, study.wanted.seed
    learn = np.arange(len(judging.pool))
    if judging.protocol.crossed:
        shown = np.union1d(judged.surest_mistakes[:_PICTURES], judged.closest_calls[:_PICTURES])
        kept = np.setdiff1d(learn, shown)
        if np.bincount(judging.pool.codes()[kept], minlength=len(judging.pool.classes)).min() >= 1:
            learn = kept
    place, head = study.chooser(learn, seed)
    return place, fitted(study.reader, place, head, learn, seed, balance=probe.balance)


def _asking(study: _Study, place: Place, head: Head) -> Callable[[Images], Array]:
    """Prepared images to the probe's answers."""
    compiled: list[runtime.Executable] = []

    def ask(images: Images) -> Array:
        source = study.source
        if not compiled:
            compiled.append(
                runtime.compile_graph(
                    feature_graph(source, [place]),
                    runtime=study.options.runtime,
                    precision=study.options.precision or source.precision,
                    batch_size=source.batch_size,
                )
            )
        batches = runtime.split_batches(images, source.batch_size)
        return head.probabilities(compiled[0].run(batches, len(images)))

    return ask


def _summary(study: _Study) -> str:
    source, probe = study.source, study.wanted.probe
    judging = study.judging
    views = "" if probe.augmentation is None else f", with {probe.augmentation.views} augmented views each"
    return (
        f"{short_name(source.name)}, frozen, teaches a head {len(judging.pool.classes)} classes from "
        f"{len(judging.pool):,} images{views}. Every control learns from the same labels and is judged by "
        "the same images."
    )


def _facts(study: _Study, dataset: Dataset, command: str, seconds: float) -> Mapping[str, str]:
    source, asked = study.source, study.judging.asked
    judged = (
        {} if asked.name == dataset.name else {"judged_by": f"{asked.name}, fingerprint {asked.fingerprint}"}
    )
    return {
        "command": command,
        "source": about_source(source),
        "source_fingerprint": source.fingerprint,
        "data": f"{dataset.name}, fingerprint {dataset.fingerprint}",
        **judged,
        "preparation": f"{source.input.policy} to {source.input.height_px} x {source.input.width_px} px",
        "seed": str(study.wanted.seed),
        **made_with(),
        "everything": f"{seconds:.1f} s",
        "date": strftime("%Y-%m-%d"),
    }
