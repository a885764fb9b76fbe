"""The report of a study: figures, galleries, facts and sentences; it decides no number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import strftime

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.doctor import Checkup
from headstart.data.dataset import Dataset
from headstart.data.images.thumbnails import examples_of
from headstart.evaluation.calibration import reliability
from headstart.evaluation.metrics import evaluate
from headstart.evaluation.records import Calibration, Evaluation
from headstart.graph import run as runtime
from headstart.heads.base import Head
from headstart.records import Array, Images
from headstart.report.records import Report
from headstart.sources.features import Place, feature_graph
from headstart.strategies.embedded import about_features
from headstart.strategies.fits import fitted
from headstart.strategies.places import places_of
from headstart.strategies.provenance import about_source, made_with
from headstart.workflows.comparison.present import short_name
from headstart.workflows.comparison.protocol import EvaluationSetup
from headstart.workflows.comparison.table import Table
from headstart.workflows.comparison.verdict import PROBE
from headstart.workflows.feature_map import feature_scatter
from headstart.workflows.gallery import EvaluatedImages, galleries
from headstart.workflows.study.context import StudyContext

__all__ = ["study_facts", "study_result", "study_summary"]

_ROUNDING = 1e-9
_GALLERY_IMAGES = 12  # more than a gallery shows


def study_result(study: StudyContext, table: Table, remarks: tuple[str, ...], found: Checkup) -> Report:
    """All of the report but its title and facts."""
    setup, test = study.setup, study.setup.test
    assert table.probabilities is not None, "there are test images"
    codes, classes = test.codes(setup.pool.classes), setup.pool.classes
    n_rounds = [row.draws for row in table.rows if row.strategy == PROBE][-1]
    first = f", first of {n_rounds} rounds" if n_rounds > 1 else ""
    title = f"The probe on the {setup.judged_on} images of {test.name}{first}"
    evaluated = EvaluatedImages(test, table.probabilities, codes, classes, study.source.input)
    heads = _explained_heads(study, evaluated)
    place = heads[0][0]
    evaluated = replace(evaluated, predict=_predict_function(study, heads))
    study.options.progress.step("explaining the predictions", 0, 1)
    sizes = {"train": len(setup.pool), setup.judged_on: len(test), "classes": len(classes)}
    return Report(
        title=title,
        summary="",
        verdict=_verdict(table, setup),
        remarks=(*table.remarks, *remarks),
        rows=table.rows,
        comparisons=table.comparisons,
        evaluations=(_evaluated(title, study, table, codes),),
        curves=(),
        facts={},
        sizes=sizes,
        examples=examples_of(setup.pool),
        judged_on=setup.judged_on,
        protocol=setup.sentence + _nested(study),
        findings=found.remarks,
        calibrations=(_calibrated(study, table, codes, first),),
        galleries=galleries(evaluated),
        scatters=(
            feature_scatter(
                f"Features at {place[0]}, {place[1]}",
                study.reader.test_rows(place),
                codes,
                classes,
                ~evaluated.wrong,
                seed=study.seed,
            ),
        ),
    )


def _verdict(table: Table, setup: EvaluationSetup) -> str:
    """The comparisons, then the probe's accuracy with the most labels."""
    if any(one.strategy == PROBE for one in table.comparisons):
        return f"{table.verdict} {_attained(table, setup)}"
    return table.verdict


def _attained(table: Table, setup: EvaluationSetup) -> str:
    """The probe's accuracy with the most labels, whatever the comparisons say."""
    best = [row.accuracy for row in table.rows if row.strategy == PROBE][-1]
    return (
        f"The probe gets {best.value:.1%} of the {best.n:,} {setup.judged_on} images right "
        f"[{100 * best.low:.1f}, {100 * best.high:.1f}]."
    )


def _evaluated(title: str, study: StudyContext, table: Table, codes: NDArray[np.int64]) -> Evaluation:
    """Detailed metrics; accuracy keeps the table's interval, which counts groups."""
    assert table.probabilities is not None, "there are test images"
    classes = study.setup.pool.classes
    setup = study.setup
    found = evaluate(
        title, table.probabilities, codes, classes, setup.test.cluster_codes, crossed=setup.protocol.crossed
    )
    ours = [row.accuracy for row in table.rows if row.strategy == PROBE][-1]
    same = abs(ours.value - found.accuracy.value) < _ROUNDING
    return replace(found, accuracy=ours) if same else found


def _calibrated(study: StudyContext, table: Table, codes: NDArray[np.int64], first: str) -> Calibration:
    assert table.probabilities is not None, "there are test images"
    clusters, crossed = study.setup.test.cluster_codes, study.setup.protocol.crossed
    title = f"Calibration of the probe{first}"
    return reliability(title, table.probabilities, codes, clusters=clusters, crossed=crossed)


def _nested(study: StudyContext) -> str:
    """A sentence on selection inside every fit, where there was a selection."""
    _, heads, _ = places_of(study.source, study.probe)
    if not heads:
        return ""
    return " Layer, pooling and head were selected in every fit, by cross-validation on its training images."


def _explained_heads(study: StudyContext, evaluated: EvaluatedImages) -> list[tuple[Place, Head]]:
    """Heads for occlusion maps; when cross-validated, they are not trained on the images shown."""
    setup, probe, seed = study.setup, study.probe, study.seed
    train = np.arange(len(setup.pool))
    if setup.protocol.crossed:
        mistakes, unsure = evaluated.mistakes_by_confidence, evaluated.least_certain_first
        shown = np.union1d(mistakes[:_GALLERY_IMAGES], unsure[:_GALLERY_IMAGES])
        kept = np.setdiff1d(train, shown)
        if np.bincount(setup.pool.codes()[kept], minlength=len(setup.pool.classes)).min() >= 1:
            train = kept
    return [
        (place, fitted(study.reader, place, head, train, seed, balance=probe.balance))
        for place, head in study.chooser(train, seed)
    ]


def _predict_function(study: StudyContext, heads: Sequence[tuple[Place, Head]]) -> Callable[[Images], Array]:
    """From prepared images to the mean of the heads' probabilities; the graph is compiled on first use."""
    compiled: list[runtime.Executable] = []

    def predict(images: Images) -> Array:
        source = study.source
        if not compiled:
            compiled.append(
                runtime.compile_graph(
                    feature_graph(source, [place for place, _ in heads]),
                    runtime=study.options.runtime,
                    precision=study.options.precision or source.precision,
                    batch_size=source.batch_size,
                )
            )
        batches = runtime.split_batches(images, source.batch_size)
        found = [
            np.mean([head.probabilities(one) for (_, head), one in zip(heads, rows, strict=True)], axis=0)
            for rows in compiled[0].stream(batches)
        ]
        return np.concatenate(found)

    return predict


def study_summary(study: StudyContext) -> str:
    """What is learned from how many images, in two sentences."""
    source, probe = study.source, study.probe
    setup = study.setup
    copies = (
        "" if probe.augmentation is None else f", with {probe.augmentation.n_copies} augmented copies each"
    )
    return (
        f"A head on {short_name(source.name)}, frozen, learns {len(setup.pool.classes)} classes from "
        f"{len(setup.pool):,} images{copies}. Every control learns from the same labels and is tested on "
        "the same images."
    )


def study_facts(study: StudyContext, dataset: Dataset, command: str, seconds: float) -> Mapping[str, str]:
    """What is necessary to reproduce the figures."""
    source, setup, test = study.source, study.setup, study.setup.test
    test_set = (
        {} if test.name == dataset.name else {"judged_by": f"{test.name}, fingerprint {test.fingerprint}"}
    )
    return {
        "command": command,
        "source": about_source(source),
        "source_fingerprint": source.fingerprint,
        "data": f"{dataset.name}, fingerprint {dataset.fingerprint}",
        **test_set,
        **about_features(setup.pool, test),
        "preparation": f"{source.input.policy} to {source.input.height_px} x {source.input.width_px} px",
        "seed": str(study.seed),
        **made_with(),
        "everything": f"{seconds:.1f} s",
        "date": strftime("%Y-%m-%d"),
    }
