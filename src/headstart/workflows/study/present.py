"""The report of a study: its figures, galleries, facts and sentences.

Apart from the run because nothing here decides a number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from headstart.strategies.fits import fitted
from headstart.strategies.places import places_of
from headstart.strategies.provenance import about_source, made_with
from headstart.workflows.comparison.present import short_name
from headstart.workflows.comparison.protocol import Judging
from headstart.workflows.comparison.table import Table
from headstart.workflows.comparison.verdict import PROBE
from headstart.workflows.feature_map import feature_scatter
from headstart.workflows.gallery import Judged, galleries
from headstart.workflows.study.context import StudyContext

__all__ = ["study_facts", "study_result", "study_summary"]

_ROUNDING = 1e-9
_PICTURES = 12  # more than a gallery shows


def study_result(study: StudyContext, table: Table, remarks: tuple[str, ...], found: Checkup) -> Report:
    """All of the report but its title and facts."""
    judging, assessed = study.judging, study.judging.asked
    assert table.answers is not None, "there are images to answer"
    codes, classes = assessed.codes(judging.pool.classes), judging.pool.classes
    title = f"The probe on the {judging.judged_on} images of {assessed.name}"
    judged = Judged(assessed, table.answers, codes, classes, study.source.input)
    place, head = _explaining(study, judged)
    judged = replace(judged, ask=_asking(study, place, head))
    study.options.progress.step("explaining the predictions", 0, 1)
    sizes = {"learnt from": len(judging.pool), judging.judged_on: len(assessed), "classes": len(classes)}
    return Report(
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
        calibrations=(_calibrated(study, table, codes),),
        galleries=galleries(judged),
        scatters=(
            feature_scatter(
                f"Features at {place[0]}, {place[1]}",
                study.reader.test_rows(place),
                codes,
                classes,
                ~judged.wrong,
                seed=study.seed,
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


def _evaluated(title: str, study: StudyContext, table: Table, codes: NDArray[np.int64]) -> Evaluation:
    """The answers in detail; where images come in groups, accuracy keeps the interval that counts them."""
    assert table.answers is not None, "there are images to answer"
    classes = study.judging.pool.classes
    judging = study.judging
    found = evaluate(
        title, table.answers, codes, classes, judging.asked.together, crossed=judging.protocol.crossed
    )
    ours = [row.accuracy for row in table.rows if row.strategy == PROBE][-1]
    same = abs(ours.value - found.accuracy.value) < _ROUNDING
    return replace(found, accuracy=ours) if same else found


def _calibrated(study: StudyContext, table: Table, codes: NDArray[np.int64]) -> Calibration:
    """How reliable the probabilities are."""
    assert table.answers is not None, "there are images to answer"
    together, crossed = study.judging.asked.together, study.judging.protocol.crossed
    title = "How reliable its probabilities are"
    return reliability(title, table.answers, codes, clusters=together, crossed=crossed)


def _nested(study: StudyContext) -> str:
    """Say that a choice was made anew inside every fit, where there was one."""
    _, heads, _ = places_of(study.source, study.probe)
    if not heads:
        return ""
    return " Layer, pooling and head were selected in every fit, by cross-validation on its training images."


def _explaining(study: StudyContext, judged: Judged) -> tuple[Place, Head]:
    """A head to draw maps with: of images judged by themselves it has not seen those that are shown."""
    judging, probe, seed = study.judging, study.probe, study.seed
    learn = np.arange(len(judging.pool))
    if judging.protocol.crossed:
        shown = np.union1d(judged.surest_mistakes[:_PICTURES], judged.closest_calls[:_PICTURES])
        kept = np.setdiff1d(learn, shown)
        if np.bincount(judging.pool.codes()[kept], minlength=len(judging.pool.classes)).min() >= 1:
            learn = kept
    place, head = study.chooser(learn, seed)
    return place, fitted(study.reader, place, head, learn, seed, balance=probe.balance)


def _asking(study: StudyContext, place: Place, head: Head) -> Callable[[Images], Array]:
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


def study_summary(study: StudyContext) -> str:
    """What learns from how many images, in two sentences."""
    source, probe = study.source, study.probe
    judging = study.judging
    views = "" if probe.augmentation is None else f", with {probe.augmentation.views} augmented copies each"
    return (
        f"{short_name(source.name)}, frozen, teaches a head {len(judging.pool.classes)} classes from "
        f"{len(judging.pool):,} images{views}. Every control learns from the same labels and is tested on "
        "the same images."
    )


def study_facts(study: StudyContext, dataset: Dataset, command: str, seconds: float) -> Mapping[str, str]:
    """What is necessary to get the figures again."""
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
        "seed": str(study.seed),
        **made_with(),
        "everything": f"{seconds:.1f} s",
        "date": strftime("%Y-%m-%d"),
    }
