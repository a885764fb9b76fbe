"""Aligned columns of text, on the command line and in files."""

from __future__ import annotations

from collections.abc import Sequence

from headstart.errors import printable

__all__ = ["aligned"]


def aligned(rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Columns of text: the first ``left`` columns aligned left, the others right; one line for each row.

    >>> print(aligned([["a", "1"], ["bb", "10"]]))
    a    1
    bb  10
    """
    rows = [[printable(text) for text in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            text.ljust(width) if column < left else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
