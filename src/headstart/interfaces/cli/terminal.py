"""What the commands print cannot steer a terminal: names in it may come from strangers' folders and models."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from headstart.errors import printable

__all__ = ["harmless_output"]


class _Harmless:
    """A text stream that escapes control characters but line ends and tabs; in JSON the text stays the same.

    ``raw`` is the stream itself, for a progress bar, whose own control characters are wanted.
    """

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw

    def write(self, text: str) -> int:
        self.raw.write(printable(text, keep="\n\t"))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


@contextmanager
def harmless_output() -> Iterator[None]:
    """Standard output and standard error escape control characters until the end."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Harmless(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
