"""A study: examine the data, choose the protocol, run the probe and its controls, report.

Apart from the comparison because here the data are checked and the contestants made.
"""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter

from headstart.data.checks.doctor import Checkup
from headstart.data.checks.refuse import checked, refuse_shared
from headstart.data.dataset import Dataset, check_same_classes
from headstart.data.images.augment import flip_warning
from headstart.data.images.prepare import prepare
from headstart.data.names import listed
from headstart.data.stores import ArrayImages
from headstart.models.model import Model
from headstart.records import Source
from headstart.report.records import Report
from headstart.sources.features import PLAIN, Extraction
from headstart.sources.registry import kind_of
from headstart.strategies.finetune.decide import Finetuner, sentence_of
from headstart.strategies.fits import Chooser, Reader, Strategy
from headstart.workflows.comparison.present import short_name
from headstart.workflows.comparison.protocol import Judging, Protocol, decide
from headstart.workflows.comparison.table import run_table
from headstart.workflows.comparison.verdict import FINETUNE, PROBE
from headstart.workflows.study.contestants import CONTESTANTS, SCRATCH
from headstart.workflows.study.context import StudyContext
from headstart.workflows.study.present import study_facts, study_result, study_summary
from headstart.workflows.study.request import StudyRequest, check_controls

__all__ = ["run_study"]

_PARALLEL_IMAGES = 2_000  # up to which the control from scratch trains in other processes, a core each
_SMALL_PX = 64  # side up to which raw pixels are what the source sees
_NETWORKS, _SMALL_NETWORKS = 5, 10  # random ones, where one round would draw one; small ones cost little
_BUDGETS = (1, 5, 10, 50)
_BY_RULE = StudyRequest()


def run_study(
    source: Source,
    dataset: Dataset,
    wanted: StudyRequest = _BY_RULE,
    *,
    external: Dataset | None = None,
    trained: Model | None = None,
    options: Extraction = PLAIN,
    title: str = "",
    summary: str = "",
    command: str = "",
) -> Report:
    """Find out whether transfer was worth it, and how far one may trust the answer.

    Parameters
    ----------
    source : Source
        Frozen.
    dataset : Dataset
        What to learn; its splits are used as the protocol says.
    wanted : StudyRequest, optional
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
    Report
        Every number in it was judged on images that the model it is about did not learn from.

    Raises
    ------
    HeadstartError
        Of the kind that fits; a leak before any number is computed.
    """
    begun = perf_counter()
    check_controls(wanted.controls)
    dataset, found = _examined(dataset, external, wanted)
    study = _context(source, dataset, wanted, external, trained, options)
    judging = study.judging
    strategies, left_out = _strategies(study, wanted)
    few = len(judging.pool) <= _PARALLEL_IMAGES
    table = run_table(
        strategies,
        judging.pool,
        judging.asked,
        judging.protocol,
        progress=options.progress,
        beside=[one.name for one in CONTESTANTS.values() if one.parallel] if few else (),
    )
    said = [] if study.finetuner is None else [sentence_of(study.finetuner.decisions)]
    result = study_result(study, table, (*said, *left_out, *_warnings(dataset, wanted)), found)
    return replace(
        result,
        title=title or f"{short_name(source.name)} to {dataset.name}",
        summary=summary or study_summary(study),
        facts=study_facts(study, dataset, command, perf_counter() - begun),
    )


def _protocol(source: Source, wanted: StudyRequest) -> Protocol:
    made = [one for one in CONTESTANTS.values() if one.make is not None]
    return Protocol(
        _BUDGETS if wanted.labels_per_class is None else tuple(sorted(set(wanted.labels_per_class))),
        wanted.draws,
        wanted.seed,
        wanted.with_all,
        (*wanted.shown, *(one.name for one in made if not one.control and one.name != PROBE)),
        redrawn=tuple(one.name for one in made if one.redrawn),
        pairs=((FINETUNE, PROBE), (FINETUNE, SCRATCH)),
        networks=_NETWORKS if kind_of(source).large else _SMALL_NETWORKS,
    )


def _context(
    source: Source,
    dataset: Dataset,
    wanted: StudyRequest,
    external: Dataset | None,
    trained: Model | None,
    options: Extraction,
) -> StudyContext:
    """Everything that contestants are made from."""
    judging = decide(dataset, external, kind=wanted.kind, protocol=_protocol(source, wanted))
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
    plain = replace(reader, source=source, pool=judging.pool, test=judging.asked, _kept={}, _copies={})
    return StudyContext(
        source,
        trained,
        wanted.probe,
        wanted.spec,
        wanted.scratch,
        wanted.scratch_others,
        wanted.engine,
        wanted.seed,
        judging,
        reader,
        plain,
        chooser,
        options,
        finetuner,
    )


def _strategies(study: StudyContext, wanted: StudyRequest) -> tuple[dict[str, Strategy], list[str]]:
    """The probe, further strategies and the controls, and why some control is missing."""
    strategies: dict[str, Strategy] = {}
    remarks = []
    for one in CONTESTANTS.values():
        if one.make is None or (one.control and one.name not in wanted.controls):
            continue
        made = one.make(study)
        if made.strategy is not None:
            strategies[one.name] = made.strategy
        if made.remark:
            remarks.append(made.remark)
        if one.name == PROBE:
            strategies |= {name: make(study.judging) for name, make in wanted.extra.items()}
    return strategies, remarks


def _prepared(judging: Judging, source: Source) -> Judging:
    """Images in files, for a source of small images: prepared once for it and for its random twins."""
    pool, asked, spec = judging.pool, judging.asked, source.input
    if pool.images.paths is None or spec.height_px > _SMALL_PX:
        return judging
    fit_pool = replace(pool, images=ArrayImages(prepare(pool, spec)))
    fit_asked = fit_pool if asked is pool else replace(asked, images=ArrayImages(prepare(asked, spec)))
    return replace(judging, pool=fit_pool, asked=fit_asked)


def _examined(dataset: Dataset, external: Dataset | None, wanted: StudyRequest) -> tuple[Dataset, Checkup]:
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


def _warnings(dataset: Dataset, wanted: StudyRequest) -> list[str]:
    augmentation = wanted.probe.augmentation
    said = None if augmentation is None else flip_warning(dataset.classes, augmentation)
    return [said] if said else []
