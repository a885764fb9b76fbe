"""The result of an embedding as text and as plain values."""

from __future__ import annotations

from typing import Any

from headstart.workflows.comparison.present import short_name
from headstart.workflows.embed.run import Embedded

__all__ = ["embedded_facts", "embedded_text"]


def embedded_facts(found: Embedded) -> dict[str, Any]:
    """Plain values, for ``--json``."""
    record = found.record
    return {
        "output": str(found.output),
        "files": [str(path) for path in found.files],
        "n_kept": found.n_kept,
        "n_images": record.data.n_images,
        "n_features": record.n_features,
        "dtype": record.dtype,
        "source": record.source.name,
        "source_fingerprint": record.source.fingerprint,
        "layer": record.layer,
        "pooling": record.pooling,
        "precision": record.source.precision,
        "skipped": [{"path": path, "reason": reason} for path, reason in found.skipped],
    }


def embedded_text(found: Embedded) -> str:
    """Two or three lines: what was computed, where it is, what was there already."""
    record = found.record
    source = record.source
    precision = "" if source.precision == "fp32" else f", in {source.precision}"
    lines = [
        f"{record.data.n_images:,} images of {record.data.name}: {record.n_features:,} features as {record.dtype}, "
        f"from {short_name(source.name)} at {record.layer}, {record.pooling}{precision}"
    ]
    if found.n_kept:
        lines.append(f"{found.n_kept:,} of {len(found.files):,} files were there already and were kept")
    files = "" if len(found.files) == 1 else f" ({len(found.files):,} files)"
    lines.append(f"Features: {found.output}{files}")
    return "\n".join(lines)
