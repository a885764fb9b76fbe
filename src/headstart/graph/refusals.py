"""What a runtime raises about a graph, as one sentence of ours: its own lines name its source files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from headstart.errors import HeadstartError, ModelError

__all__ = ["refusals"]

_SHOWN = 200  # characters of the runtime's own words


@contextmanager
def refusals(runtime: str) -> Iterator[None]:
    """Turn the runtime's errors into ModelError; ours and those of a missing package pass."""
    try:
        yield
    except (HeadstartError, ImportError, MemoryError):
        raise
    except Exception as error:  # the runtimes have no common class of errors
        words = " ".join(str(error).split())
        words = words if len(words) <= _SHOWN else f"{words[:_SHOWN]}..."
        raise ModelError(
            f"graph is refused by the runtime {runtime} ({words}), expected one that it computes; train or export "
            "the model again, or try another runtime"
        ) from error
