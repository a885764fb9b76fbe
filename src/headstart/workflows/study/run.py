"""A study: check the data, choose the protocol, run the probe and its controls, report."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter

from headstart.data.checks.doctor import Checkup
from headstart.data.checks.refuse import checked, refuse_copies_only, refuse_shared
from headstart.data.checks.seen import seen_remark
from headstart.data.checks.unlabelled import usable
from headstart.data.dataset import Dataset, check_same_classes, require_classes
from headstart.data.embedded.images import table_of
from headstart.data.images.augment import flip_warning
from headstart.data.images.prepare import prepare
from headstart.data.names import listed
from headstart.data.readable import has_pixels
from headstart.data.stores import ArrayImages
from headstart.errors import SettingError
from headstart.models.model import Model
from headstart.records import Source
from headstart.report.records import Report
from headstart.sources.features import PLAIN, Extraction
from headstart.sources.hog import HOG
from headstart.sources.pixels import PIXELS
from headstart.sources.precision import INT8, precise
from headstart.sources.registry import kind_of
from headstart.strategies.embedded import WITHOUT_CONTROLS, left_out_sentence, on_known_features
from headstart.strategies.finetune.decide import FINETUNE_NAMES, Finetuner, sentence_of
from headstart.strategies.fits import Chooser, Reader, Strategy
from headstart.strategies.unlabelled import Unlabelled
from headstart.workflows.comparison.present import short_name
from headstart.workflows.comparison.protocol import EvaluationSetup, Protocol, decide
from headstart.workflows.comparison.table import run_table
from headstart.workflows.comparison.verdict import COLLAPSE, FINETUNE, PROBE, UNLABELLED
from headstart.workflows.study.contestants import CONTESTANTS, SCRATCH
from headstart.workflows.study.context import StudyContext
from headstart.workflows.study.present import study_facts, study_result, study_summary
from headstart.workflows.study.request import StudyRequest, check_controls, check_numbers

__all__ = ["run_study"]

_PARALLEL_IMAGES = 2_000  # up to which the control from scratch trains in other processes, one core each
_SMALL_PX = 64  # side up to which images are prepared once and kept
_NETWORKS, _SMALL_NETWORKS = 5, 10  # random networks where there is one round; small ones cost little
_FOLDS_ENOUGH = 5
_BUDGETS = (1, 5, 10, 50)
_BY_RULE = StudyRequest()


def run_study(
    source: Source,
    dataset: Dataset,
    request: StudyRequest = _BY_RULE,
    *,
    external: Dataset | None = None,
    trained: Model | None = None,
    options: Extraction = PLAIN,
    title: str = "",
    summary: str = "",
    command: str = "",
) -> Report:
    """Find out whether transfer was worth it, and how reliable the answer is.

    Parameters
    ----------
    source : Source
        Frozen.
    dataset : Dataset
        What to learn; its splits are used as the protocol says.
    request : StudyRequest, optional
        Protocol, budgets, controls, and what of the probe is fixed; all else is selected in every fit from
        its training images, so that no figure is too good.
    external : Dataset, optional
        A separate test set.
    trained : Model, optional
        The source as a model: its architecture is trained from scratch, its predictions are used by collapse.
    options : Extraction, optional
        Cache, runtime and precision.
    title, summary : str, optional
        For the report. Default: made from the names.
    command : str, default=''
        What the user typed, for the report.

    Returns
    -------
    Report
        Every number in it was measured on images that the model in question did not learn from.

    Raises
    ------
    HeadstartError
        Of the fitting class; for a leak, before any number is computed.
    """
    begun = perf_counter()
    check_controls(request.controls)
    check_numbers(request)
    probe, options = on_known_features(
        source,
        [dataset, *([] if external is None else [external])],
        request.probe,
        options,
        finetune=request.finetune is not None,
    )
    request = replace(request, probe=probe)
    dataset, found = _checked_data(dataset, external, request)
    study = _context(source, dataset, request, external, trained, options)
    setup = study.setup
    unlabelled, left_aside = _unlabelled(study.source, dataset, external, request, study.options)
    study = replace(study, unlabelled=unlabelled)
    strategies, left_out = _strategies(study, request)
    few = len(setup.pool) <= _PARALLEL_IMAGES
    table = run_table(
        strategies,
        setup.pool,
        setup.test,
        setup.protocol,
        progress=options.progress,
        in_processes=[one.name for one in CONTESTANTS.values() if one.parallel] if few else (),
        runner=study.options.runner,
        here=FINETUNE_NAMES,  # they record what was decided
    )
    finetuned = [] if study.finetuner is None else [sentence_of(study.finetuner.decisions)]
    without = left_out_sentence(_without_pixels(study, request), setup.pool, setup.test)
    remarks = (*finetuned, *without, *left_out, *left_aside, *_warnings(study, dataset, request))
    result = study_result(study, table, remarks, found)
    return replace(
        result,
        verdict=f"{result.verdict} {WITHOUT_CONTROLS}" if without else result.verdict,
        title=title or f"{short_name(source.name)} to {dataset.name}",
        summary=summary or study_summary(study),
        facts=study_facts(study, dataset, command, perf_counter() - begun),
    )


def _unlabelled(
    source: Source, dataset: Dataset, external: Dataset | None, request: StudyRequest, options: Extraction
) -> tuple[Unlabelled | None, tuple[str, ...]]:
    """The unlabelled images that are neither in the dataset nor in the test set, and remarks on the others."""
    if request.unlabelled is None:
        return None, ()
    images, remarks = usable(request.unlabelled, dataset, request.seed)
    if external is not None:
        images, more = usable(images, external, request.seed)
        remarks = (*remarks, *more)
    return Unlabelled(source, images, options), remarks


def _protocol(source: Source, request: StudyRequest) -> Protocol:
    made = [one for one in CONTESTANTS.values() if one.make is not None]
    return Protocol(
        _BUDGETS if request.labels_per_class is None else tuple(sorted(set(request.labels_per_class))),
        request.draws,
        request.seed,
        request.with_all,
        (*request.shown, *(one.name for one in made if not one.control and one.name != PROBE)),
        redrawn=tuple(one.name for one in made if one.redrawn),
        pairs=((UNLABELLED, PROBE), (FINETUNE, PROBE), (FINETUNE, SCRATCH)),
        slow=tuple(
            one.name for one in made if one.parallel or one.role == "finetune" or one.name in FINETUNE_NAMES
        ),
        margin=request.margin,
        networks=request.networks or (_NETWORKS if kind_of(source).large else _SMALL_NETWORKS),
    )


def _context(
    source: Source,
    dataset: Dataset,
    request: StudyRequest,
    external: Dataset | None,
    trained: Model | None,
    options: Extraction,
) -> StudyContext:
    """Everything that contestants are made from."""
    setup = decide(dataset, external, kind=request.kind, protocol=_protocol(source, request))
    if request.labels_per_class is None and setup.protocol.kind == "leave-one-out":
        # with one fit per image a learning curve would take too long
        setup = replace(setup, protocol=replace(setup.protocol, labels_per_class=()))
    ready = precise(source, lambda: setup.pool, options)
    source, options = ready.source, ready.options
    if request.finetune is not None and source.precision == INT8:
        raise SettingError(
            "strategies include finetune with a source in int8, expected one in fp32, because a network is trained "
            "in floats; leave one of the two out"
        )
    prepared = _prepared(setup, source)
    input_spec = source.input if prepared is setup else replace(source.input, policy="squish")
    prepared_source = replace(source, input=input_spec)
    reader = Reader(
        prepared_source, prepared.pool, prepared.test, options, request.probe.augmentation, request.seed
    )
    chooser = Chooser(reader, request.probe)
    finetuner = None
    if request.finetune is not None:
        finetuner = Finetuner(reader, chooser, request.finetune, options.progress)
    plain = replace(reader, source=source, pool=setup.pool, test=setup.test, _kept={}, _copies={})
    return StudyContext(
        source,
        trained,
        request.probe,
        request.spec,
        request.scratch,
        request.scratch_very_few,
        request.engine,
        request.seed,
        setup,
        reader,
        plain,
        chooser,
        options,
        finetuner,
    )


def _strategies(study: StudyContext, request: StudyRequest) -> tuple[dict[str, Strategy], list[str]]:
    """The probe, further strategies and the controls, and why a control is missing."""
    strategies: dict[str, Strategy] = {}
    remarks = []
    without = _without_pixels(study, request)
    for one in CONTESTANTS.values():
        if one.make is None or (one.control and one.name not in request.controls) or one.name in without:
            continue
        made = one.make(study)
        if made.strategy is not None:
            strategies[one.name] = made.strategy
        if made.remark:
            remarks.append(made.remark)
        if one.name == PROBE:
            strategies |= {name: make(study.setup) for name, make in request.extra.items()}
    return strategies, remarks


def _without_pixels(study: StudyContext, request: StudyRequest) -> list[str]:
    """Controls that are left out because they compute from images, of which the features alone are known."""
    if has_pixels(study.setup.pool.images) and has_pixels(study.setup.test.images):
        return []
    kind = kind_of(study.source)
    own = {PIXELS.prefix: "raw pixels", HOG.prefix: "HOG"}.get(kind.prefix)
    runs = {COLLAPSE: study.trained is not None, "random frozen": kind.pretrained}
    wanted = [one.name for one in CONTESTANTS.values() if one.pixels and one.name in request.controls]
    return [name for name in wanted if name != own and runs.get(name, True)]


def _prepared(setup: EvaluationSetup, source: Source) -> EvaluationSetup:
    """Image files prepared once for a source of small images and for its random networks."""
    pool, test, spec = setup.pool, setup.test, source.input
    if pool.images.pixels is not None or spec.height_px > _SMALL_PX or table_of(pool.images) is not None:
        return setup
    fit_pool = replace(pool, images=ArrayImages(prepare(pool, spec)))
    fit_test = fit_pool if test is pool else replace(test, images=ArrayImages(prepare(test, spec)))
    return replace(setup, pool=fit_pool, test=fit_test)


def _checked_data(
    dataset: Dataset, external: Dataset | None, request: StudyRequest
) -> tuple[Dataset, Checkup]:
    """The dataset with its clusters, and the doctor's findings; raises where it cannot be evaluated."""
    dataset, found = checked(dataset, allow_leaks=request.allow_leaks)
    require_classes(dataset)
    if external is None:
        refuse_copies_only(dataset)
        return dataset, found
    check_same_classes(dataset, external)
    absent = [name for name in dataset.classes if name not in set(external.labels.tolist())]
    if absent:
        remark = f"{external.name} has no image of {listed(absent)}: only the other classes are tested"
        found = replace(found, remarks=(remark, *found.remarks))
    return dataset, refuse_shared(dataset, external, found, allow_leaks=request.allow_leaks)


def _warnings(study: StudyContext, dataset: Dataset, request: StudyRequest) -> list[str]:
    """Remarks on images that the source has seen, on few folds, and on flips."""
    setup, augmentation = study.setup, request.probe.augmentation
    return list(
        filter(
            None,
            (
                seen_remark("the source", setup.test.images, study.source.seen),
                _few_folds(setup),
                None if augmentation is None else flip_warning(dataset.classes, augmentation),
            ),
        )
    )


def _few_folds(setup: EvaluationSetup) -> str | None:
    """A remark where the models of the folds learn from far fewer images than one that learns from all."""
    n_folds = setup.protocol.n_folds
    if not (setup.protocol.with_all and 1 < n_folds < _FOLDS_ENOUGH):
        return None
    return (
        f"With all labels each model learned from about {1 - 1 / n_folds:.0%} of the images, since the smallest "
        f"class allows only {n_folds} folds: a model that learns from all of them may be more accurate."
    )
