"""What the command inspect prints: a page of sections, one finding, copy or file a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from headstart.interfaces.cli.describe import NO_REMARK
from headstart.interfaces.cli.tables import spaced_pairs
from headstart.report.columns import aligned

__all__ = ["inspect_page"]

_UNSEARCHED = "Images were not decoded: near copies and flat images were not searched for."


def inspect_page(described: Mapping[str, Any], *, quick: bool = False) -> str:
    """The page of a dataset or a model, as `describe_path` describes it, with the same ``quick``."""
    if "dataset" not in described:
        return spaced_pairs(described)
    sections = [
        [f"{described['dataset']}: {_counted(described['n_images'], 'image')}, {_classes(described)}"],
        list(_facts(described)),
        _counts(described["images_per_split_and_class"]),
        list(_findings(described["remarks"], quick)),
        list(_copies(described.get("duplicates", []))),
        list(_skipped(described.get("skipped", {}))),
    ]
    return "\n\n".join("\n".join(map(_printable, lines)) for lines in sections if lines)


def _classes(described: Mapping[str, Any]) -> str:
    return _counted(len(described["images_per_class"]), "class", "classes")


def _counted(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _facts(described: Mapping[str, Any]) -> Iterator[str]:
    facts = {
        "size": f"{described['size']} px" if "size" in described else _sizes(described.get("sizes_px")),
        "formats": _numbers(described.get("formats", {})),
        "modes": _numbers(described.get("modes", {})),
        "polarity": _numbers(described.get("polarity", {})),
        "depth": f"{described['depth_bits']} bits in 16-bit files" if "depth_bits" in described else "",
        "groups": f"{described['n_groups']:,}" if "n_groups" in described else "",
        "imbalance": f"{described['imbalance']:.1f}" if described["imbalance"] >= 1.05 else "",
        "fingerprint": described["fingerprint"],
    }
    width = max(map(len, facts))
    yield from (f"{name.ljust(width)}  {value}" for name, value in facts.items() if value)


def _sizes(sizes: Mapping[str, Any] | None) -> str:
    if sizes is None:
        return ""
    if sizes["different_sizes"] == 1:
        return f"{sizes['median']} px"
    return (
        f"{sizes['smallest']} to {sizes['largest']} px, median {sizes['median']}, "
        f"{sizes['different_sizes']:,} different sizes"
    )


def _numbers(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in counts.items())


def _counts(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A table of classes and splits."""
    splits = list(counts)
    classes = list(counts[splits[0]])
    total = ["all"] if len(splits) > 1 else []
    header = ["class", *(["images"] if splits == ["all"] else splits), *total]
    rows = [[name, *(f"{counts[split][name]:,}" for split in splits)] for name in classes]
    sums = [f"{sum(counts[split][name] for split in splits):,}" for name in classes]
    if total:
        rows = [[*row, one] for row, one in zip(rows, sums, strict=True)]
    return aligned([header, *rows]).splitlines()


def _findings(remarks: list[str], quick: bool) -> Iterator[str]:
    if remarks == [NO_REMARK]:
        yield f"Findings: {NO_REMARK}"
    else:
        yield f"Findings ({len(remarks)})"
        yield from (f"- {remark}" for remark in remarks)
    if quick:
        yield _UNSEARCHED


def _copies(duplicates: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Every pair, those in two splits first."""
    if not duplicates:
        return
    n_leaks = sum(bool(pair["leak"]) for pair in duplicates)
    yield f"Copies ({_counted(len(duplicates), 'pair')}{f', {n_leaks:,} in two splits' if n_leaks else ''})"
    for pair in sorted(duplicates, key=lambda pair: not pair["leak"]):
        how = "exact    " if pair["kind"] == "exact" else f"near {pair['similarity']:.2f}"
        sides = zip((pair["first"], pair["second"]), pair["labels"], pair["splits"] or ("", ""), strict=True)
        yield f"- {how}  " + "  =  ".join(
            f"{name} ({label}{f', {split}' if split else ''})" for name, label, split in sides
        )


def _skipped(skipped: Mapping[str, str]) -> Iterator[str]:
    if not skipped:
        return
    yield f"Files left out ({len(skipped):,})"
    yield from (f"- {path}: {reason}" for path, reason in skipped.items())


def _printable(line: str) -> str:
    """A line that stays one line on a terminal: characters that cannot be printed are escaped."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line)
