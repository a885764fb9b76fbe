"""The source ``pixels``: the prepared pixels themselves, the control that transfer has to beat."""

from __future__ import annotations

from headstart.data.dataset import Dataset
from headstart.data.readers.load import load
from headstart.graph import build, layers
from headstart.records import InputSpec, Source
from headstart.sources.kind import SourceKind
from headstart.sources.networks import graph_source, native_input

__all__ = ["PIXELS", "pixel_source"]


def pixel_source(spec: InputSpec) -> Source:
    """Pixels prepared to this size, scaling and policy, as a source with one layer, ``values``."""
    builder = build.GraphBuilder(input_spec=spec)
    builder.add("Identity", layers.normalise(builder, spec), name="values")
    shape = (spec.channels, spec.height_px, spec.width_px)
    return graph_source(PIXELS.prefix, builder.model(["values"]), spec, shape)


def _open(name: str, *, dataset: Dataset | None, seed: int, size_px: int | None) -> Source:
    return pixel_source(native_input(dataset or load("digits")))


PIXELS = SourceKind(
    "pixels",
    {"pixels": "no network: the prepared pixels as features, a control"},
    _open,
    pretrained=False,
)
