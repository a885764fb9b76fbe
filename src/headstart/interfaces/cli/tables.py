"""What the command line prints: records as text without a trailing newline; nothing is computed here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from time import localtime, strftime
from typing import TYPE_CHECKING, Any

from headstart.errors import printable
from headstart.evaluation.records import Calibration, Detection, Evaluated, Evaluation, Score
from headstart.report.columns import aligned
from headstart.report.entries import note_of
from headstart.report.records import Report, Row

if TYPE_CHECKING:
    from headstart.system.stored import CacheEntry

__all__ = [
    "cache_table",
    "cache_total",
    "calibration_line",
    "detection_table",
    "evaluated_document",
    "evaluated_text",
    "evaluation_table",
    "pairs",
    "ranking_table",
    "result_table",
    "spaced_pairs",
]


_SHOWN = 20
_WITH_KEYS = ("data", "held_out_scores", "sizes_px", "source")  # nested names elsewhere are classes or files
_PRINTED_AS = {"learnt_from": "trained on", "tap": "layer", "n_held": "n held out"}


def pairs(values: Mapping[str, Any]) -> str:
    """Names and values, one line each; a nested mapping is indented."""
    lines = []
    values = {printable(str(name)): value for name, value in values.items()}
    width = max((len(name) for name in values), default=0)
    for name, value in values.items():
        if isinstance(value, Mapping):
            lines.append(name)
            lines += [f"  {line}" for line in pairs(value).splitlines()]
        else:
            shown = _listed(value) if isinstance(value, list | tuple) else _plain(value)
            lines.append(f"{name.ljust(width)}  {printable(shown)}")
    return "\n".join(lines)


def _plain(value: Any) -> str:
    """A value as people write it: no braces, no quotes, no long fractions."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(_plain, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else str(value)


def _listed(values: Sequence[Any]) -> str:
    """All values, or the first of many."""
    few = ", ".join(map(_plain, values[:_SHOWN]))
    return few if len(values) <= _SHOWN else f"{few} and {len(values) - _SHOWN:,} more"


def spaced_pairs(values: Mapping[str, Any]) -> str:
    """The same for names that are keys: ``n_images`` is printed as ``n images``."""
    return pairs(_spaced({name: _spaced(one) if name in _WITH_KEYS else one for name, one in values.items()}))


def _spaced(values: Any) -> Any:
    """The names of a mapping as they are printed; anything else as it is."""
    if not isinstance(values, Mapping):
        return values
    return {_PRINTED_AS.get(name, name.replace("_", " ")): value for name, value in values.items()}


def result_table(result: Report) -> str:
    """Strategies by budgets: accuracy in per cent with its 95 % interval."""
    if not result.rows:
        return result.title
    strategies = list(dict.fromkeys(row.strategy for row in result.rows))
    budgets = list(dict.fromkeys(row.labels_per_class for row in result.rows))
    cells = {(row.strategy, row.labels_per_class): row for row in result.rows}
    header = ["labels per class", *("all" if budget is None else str(budget) for budget in budgets)]
    body = [[name, *(_cell(cells.get((name, budget))) for budget in budgets)] for name in strategies]
    n_test = result.rows[0].accuracy.n
    several = max(row.draws for row in result.rows) > 1
    mean = ", mean over draws of labels, splits into folds or random networks" if several else ""
    note = f"Accuracy in % [95 % interval] on the same {n_test:,} {result.judged_on} images{mean}."
    return "\n\n".join([result.title, aligned([header, *body]), *_legend(result, strategies), note])


def _legend(result: Report, strategies: Sequence[str]) -> list[str]:
    """What the rows of a result table are, as far as it is registered."""
    controls = {one.control for one in result.comparisons} - {one.strategy for one in result.comparisons}
    lines = [
        f"{name}: {'control, ' if name in controls else ''}{note_of(name)}"
        for name in strategies
        if note_of(name)
    ]
    return ["\n".join(lines)] if lines else []


def ranking_table(result: Report) -> str:
    """The sources of a ranking, the most accurate first."""
    table = result.tables[0]
    return f"{aligned([list(table.header), *map(list, table.lines)])}\n\n{table.caption}\n"


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"
    found = row.accuracy
    return f"{100 * found.value:.2f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def evaluated_document(found: Evaluated) -> dict[str, Any]:
    """An evaluation as JSON: the metrics, and which images they are about."""
    return {
        "about": found.about,
        "split": found.split,
        "new": found.new,
        "learned": found.learned,
        "counts": found.counts,
        **asdict(found.evaluation),
        "absent_classes": found.evaluation.absent,
        "n_groups": found.n_groups,
        "calibration": found.calibration,
        "detection": found.detection,
        "warnings": found.warnings,
        "remarks": found.remarks,
    }


def evaluated_text(found: Evaluated) -> str:
    """Accuracy on new images and on those learned from, then the metrics."""
    counts = found.counts
    rows = [["", "images", "accuracy [95 % interval]"]]
    if found.about == "images":
        rows.append(["images", f"{counts['images']:,}", _score(found.evaluation.accuracy)])
    else:
        for name, kind, score in (
            ("new images", "new", found.new),
            ("images learned from", "learned", found.learned),
        ):
            rows.append([name, f"{counts[kind]:,}", "-" if score is None else _score(score)])
    parts = [f"{found.title}\n\n{aligned(rows)}"]
    if counts.get("near_copies"):
        parts[0] += f"\n{counts['near_copies']:,} of the images learned from are re-encoded or altered copies"
    if found.remarks:
        parts.append("\n".join(f"- {remark}" for remark in found.remarks))
    about = _ABOUT[found.about].format(found.evaluation.accuracy.n)
    parts.append(f"The metrics below are computed on {about}.")
    parts += [evaluation_table(found.evaluation), calibration_line(found.calibration)]
    if found.detection is not None:
        parts.append(detection_table(found.detection))
    return "\n\n".join(parts)


_ABOUT = {
    "new images": "the {:,} new images, which the model did not learn from",
    "images learned from": "{:,} images that the model learned from: no estimate of its accuracy on new images",
    "images": "{:,} images; it is unknown whether the model learned from them",
}


def evaluation_table(found: Evaluation) -> str:
    """Accuracy, a line per class, and the confusion counts."""
    per_class = [["class", "precision", "recall", "F1", "images"]]
    for one in found.per_class:
        scores = ("-", "-", "-") if not one.recall.n else map(_score, (one.precision, one.recall, one.f1))
        per_class.append([one.name, *scores, str(one.recall.n)])
    if found.macro is not None:
        macro = map(_score, (found.macro.precision, found.macro.recall, found.macro.f1))
        per_class.append(["average over classes", *macro, str(found.macro.recall.n)])
    counts = [["true \\ predicted", *found.classes]]
    counts += [[name, *map(str, row)] for name, row in zip(found.classes, found.confusion, strict=True)]
    head = f"accuracy {_score(found.accuracy)} on {found.accuracy.n:,} images, loss {found.loss:.4f} nats"
    return "\n\n".join([head, aligned(per_class), aligned(counts)])


def calibration_line(found: Calibration) -> str:
    """Calibration error, Brier score and loss."""
    return (
        f"calibration error {found.ece:.4f}, Brier score {found.brier:.4f}, loss {found.nll:.4f} nats on "
        f"{found.n:,} images"
    )


def detection_table(found: Detection) -> str:
    """How well novel images are detected, compared with the largest probability as a detector."""
    rate = f"{100 * found.rate:g} % of the known images rejected"
    rows = [
        ["none of these", "novelty", "largest probability"],
        ["area under the curve", _score(found.auroc), _score(found.baseline_auroc)],
        [
            f"detected, {rate}",
            _score(found.detected_at_rate),
            _score(found.baseline_detected_at_rate),
        ],
        ["detected at the model's threshold", _score(found.detected), "-"],
        ["known images rejected at that threshold", _score(found.falsely_rejected), "-"],
    ]
    n_known, n_novel = found.falsely_rejected.n, found.detected.n
    return f"{found.title}: {n_known:,} known images, {n_novel:,} novel\n{aligned(rows)}"


def _score(score: Score) -> str:
    return f"{score.value:.4f} [{score.low:.4f}, {score.high:.4f}]"


def cache_table(entries: Sequence[CacheEntry]) -> str:
    """What is cached, a line each, and the total size."""
    if not entries:
        return cache_total(entries)
    rows = [["key", "kind", "of", "shape", "MiB", "last used", "state"]]
    rows += [
        [
            one.key[:12],
            one.kind,
            printable(str(one.parts.get("tap", one.parts.get("network", "-")))),
            "x".join(map(str, one.shape)) or "-",
            f"{one.size_bytes / 2**20:.1f}",
            strftime("%Y-%m-%d %H:%M", localtime(one.used_at)),
            one.state,
        ]
        for one in entries
    ]
    return f"{aligned(rows, left=3)}\n{cache_total(entries)}"


def cache_total(entries: Sequence[CacheEntry]) -> str:
    """How many arrays, graphs, networks and other files, and their size."""
    whole = Counter(one.kind for one in entries if one.state == "complete")
    counted = [f"{whole['features']} arrays"]
    counted += [
        f"{whole[kind]} {kind}{'s' * (whole[kind] > 1)}" for kind in ("graph", "network") if whole[kind]
    ]
    if rest := len(entries) - sum(whole.values()):
        counted.append(f"{rest} unfinished or unusable")
    listed = " and ".join([part for part in (", ".join(counted[:-1]), counted[-1]) if part])
    return f"{listed}, {sum(one.size_bytes for one in entries) / 2**20:.1f} MiB"
