"""Values of a manifest, checked one by one: a manifest may come from a stranger, or from a damaged disk.

Every function returns the value or raises TypeError or ValueError; `manifest` says which model it is about.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from headstart.data.images.values import DEPTHS
from headstart.records import PREPARATION, InputSpec, LayerSpec, NetworkSpec

__all__ = [
    "digest",
    "finite",
    "input_spec",
    "integer",
    "layer_shapes",
    "mapping",
    "network_spec",
    "number",
    "numbers",
    "optional",
    "plain",
    "text",
    "texts",
]

T = TypeVar("T")

POLICIES = ("squish", "crop", "letterbox", "ink")
INTERPOLATIONS = ("bilinear", "bicubic")
_MAX_TEXT = 10_000
_MAX_SIDE_PX = 4_096
_MAX_UNITS = 2**20
_MAX_DEPTH = 8
_HEX = re.compile(r"[0-9a-f]*")


def text(value: object) -> str:
    """Text of at most 10,000 characters."""
    if not isinstance(value, str):
        raise TypeError(f"{_shown(value)} is not text")
    if len(value) > _MAX_TEXT:
        raise ValueError(f"text of {len(value):,} characters")
    return value


def mapping(value: object) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise TypeError(f"{_shown(value)} is not a mapping")
    return value


def integer(value: object, low: int, high: int) -> int:
    """A whole number within limits; 7.0 and true are none."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{_shown(value)} is not a whole number")
    if not low <= value <= high:
        raise ValueError(f"{_shown(value)} is not from {low} to {high}")
    return value


def number(value: object) -> float:
    """Any number; NaN stands for what was not measured."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{_shown(value)} is not a number")
    return value


def finite(value: object) -> float:
    """A number that is neither NaN nor infinite."""
    if not math.isfinite(number(value)):
        raise ValueError(f"{_shown(value)} is not a finite number")
    return number(value)


def digest(value: object, length: int | None = None) -> str:
    """Hexadecimal digits, of a length if one is given."""
    found = text(value)
    if not _HEX.fullmatch(found) or (length is not None and len(found) != length):
        raise ValueError(f"{_shown(value)} is not a fingerprint")
    return found


def texts(value: object) -> dict[str, str]:
    """Text by name."""
    return {text(name): text(one) for name, one in mapping(value).items()}


def numbers(value: object) -> dict[str, float]:
    """Numbers by name."""
    return {text(name): number(one) for name, one in mapping(value).items()}


def optional(values: Mapping[str, Any], name: str, check: Callable[[object], T]) -> None:
    """Check a value that may be missing."""
    if name in values:
        check(values[name])


def plain(value: object, depth: int = 0) -> Any:
    """Text, numbers, true, false, null, and lists and mappings of them, not too deep."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"values more than {_MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        return {text(name): plain(one, depth + 1) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one, depth + 1) for one in value]
    if isinstance(value, str):
        return text(value)
    return value


def layer_shapes(value: object) -> dict[str, tuple[int, ...]]:
    """Shapes of layers by name."""
    shapes = {
        text(name): tuple(integer(size, 1, _MAX_UNITS) for size in shape)
        for name, shape in mapping(value).items()
    }
    for name, shape in shapes.items():
        if not 1 <= len(shape) <= 4:
            raise ValueError(f"layer {name!r} has the shape {shape}")
    return shapes


def input_spec(document: object) -> InputSpec:
    """The input of a model or network."""
    fields = mapping(document)
    height, width, channels = (
        integer(fields[key], 1, _MAX_SIDE_PX) for key in ("height_px", "width_px", "channels")
    )
    if channels not in (1, 3):
        raise ValueError(f"{channels} channels")
    mean, std = (tuple(float(finite(value)) for value in fields[key]) for key in ("mean", "std"))
    if len(mean) not in (1, 3) or len(std) not in (1, 3) or min(std) <= 0:
        raise ValueError(f"mean {mean} and standard deviation {std}")
    policy, interpolation = text(fields["policy"]), text(fields.get("interpolation", "bilinear"))
    if policy not in POLICIES or interpolation not in INTERPOLATIONS:
        raise ValueError(f"policy {policy!r} with interpolation {interpolation!r}")
    share = float(finite(fields.get("crop_share", 1.0)))
    if not 0 < share <= 1:
        raise ValueError(f"crop_share {share:g}")
    depth = fields.get("depth_bits")
    if depth is not None and (type(depth) is not int or depth not in DEPTHS):
        raise ValueError(f"depth_bits {depth!r}")
    version = integer(fields.get("version", 1), 1, PREPARATION)  # models without it are older
    return InputSpec(height, width, channels, mean, std, policy, interpolation, share, depth, version)


def network_spec(document: object) -> NetworkSpec:
    """A network spec from its JSON form."""
    fields = mapping(document)
    layers = tuple(_layer(mapping(one)) for one in fields["layers"])
    if not layers or layers[-1].kind != "dense":
        raise ValueError("a network ends in a dense layer")
    if len({layer.name for layer in layers}) != len(layers):
        raise ValueError("a network has two layers of one name")
    return NetworkSpec(text(fields["name"]), input_spec(fields["input"]), layers)


def _layer(fields: Mapping[str, Any]) -> LayerSpec:
    kind, options = text(fields["kind"]), mapping(fields["options"])
    if kind not in _OPTIONS:
        raise ValueError(f"layer of kind {kind!r}")
    for name, check in _OPTIONS[kind].items():
        if name != "padding" or name in options:
            check(options[name])
    if unknown := sorted(set(options) - set(_OPTIONS[kind])):
        raise ValueError(f"layer of kind {kind!r} with option {unknown[0]!r}")
    return LayerSpec(kind, text(fields["name"]), options)


def _units(value: object) -> int:
    return integer(value, 1, _MAX_UNITS)


def _side(value: object) -> int:
    return integer(value, 1, 64)


def _padding(value: object) -> str:
    if value not in ("same", "valid"):
        raise ValueError(f"padding {_shown(value)}")
    return str(value)


def _rate(value: object) -> float:
    if not 0 <= finite(value) < 1:
        raise ValueError(f"rate {_shown(value)}")
    return finite(value)


_OPTIONS: dict[str, dict[str, Callable[[object], object]]] = {
    "conv2d": {"channels": _units, "kernel": _side, "padding": _padding},
    "batchnorm2d": {},
    "maxpool2d": {"size": _side},
    "relu": {},
    "flatten": {},
    "dense": {"units": _units},
    "dropout": {"rate": _rate},
}
"""The kinds of layers and their options; of them only ``padding`` may be missing."""


def _shown(value: object) -> str:
    """A value in a message, cut."""
    found = repr(value)
    return found if len(found) <= 60 else f"{found[:57]}..."
