"""Decides where features are read and which head is fitted: as given, or by cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation
from headstart.data.splits import fewest_per_class
from headstart.errors import SettingError, unknown
from headstart.graph.pooling import JOIN, POOLINGS
from headstart.heads.registry import CLOSED_FORM, SEARCHED, make_head
from headstart.records import Source
from headstart.sources.features import Extraction, Place, extract_all
from headstart.sources.registry import kind_of
from headstart.strategies.select import Choice, choose, deciding_images

__all__ = ["CHOSEN", "Probe", "Reading", "choose_places", "places_of", "selected_by"]


@dataclass(frozen=True)
class Probe:
    """A head on a frozen source; what is None is selected by cross-validation where that is possible.

    ``augmentation`` adds augmented copies of every training image; ``balance`` weights classes equally.
    """

    layer: str | None = None
    pooling: str | None = None
    head: str | None = None
    augmentation: Augmentation | None = None
    balance: bool = False


class Reading(NamedTuple):
    """Where features are read, and the head that is fitted on them."""

    place: Place
    head: str


_DEFAULT_HEAD = "kernel"

CHOSEN = Probe()
"""Everything by cross-validation."""


def choose_places(
    source: Source,
    dataset: Dataset,
    probe: Probe,
    seed: int,
    options: Extraction,
    also: Sequence[Place] = (),
) -> tuple[tuple[Reading, ...], Choice | None]:
    """Places and heads whose probabilities are averaged, and how they were selected.

    The latter is None if nothing was selected, or a class has one cluster only. Features at the places ``also`` are
    put into the cache in the same pass over the images.
    """
    places, heads, given = places_of(source, probe)
    if not heads or fewest_per_class(dataset.labels, dataset.cluster_codes) < 2:
        return (given,), None
    some = dataset.subset(deciding_images(dataset.codes(), seed))
    rows = extract_all(some, source, list(dict.fromkeys([*places, *also])), options=options)
    choice = choose(
        dict(zip(places, rows[: len(places)], strict=True)),
        some.codes(),
        heads=heads,
        default=given[0],
        clusters=some.cluster_codes,
        balance=probe.balance,
        averaged=probe.head in (None, *CLOSED_FORM),
        seed=seed,
    )
    return selected_by(choice, probe), choice


def selected_by(choice: Choice, probe: Probe) -> tuple[Reading, ...]:
    """The places and heads of a selection; a head that is given replaces that which places were compared by."""
    return tuple(Reading((one.layer, one.pooling), probe.head or one.head) for one in choice.selected)


def places_of(source: Source, probe: Probe) -> tuple[list[Place], tuple[str, ...], Reading]:
    """The candidate places and heads, and the place and head to take where nothing can be selected.

    The heads are empty if nothing is left to select. A head without closed-form held-out scores is replaced
    by ridge when places are compared. SettingError if the head is unknown, or the pooling means nothing here.
    """
    _check_pooling(source, probe)
    candidates = [
        (layer, pooling)
        for layer, pooling in source.candidates
        if probe.layer in (None, layer) and probe.pooling in (None, pooling)
    ]
    default = (probe.layer or source.default_layer, probe.pooling or "flat")
    if (
        candidates and default not in candidates
    ):  # the first pooling of a given layer, the last layer of a pooling
        default = candidates[0] if probe.layer is not None else candidates[-1]
    places = candidates or [default]
    given = Reading(default, probe.head or _DEFAULT_HEAD)
    heads: tuple[str, ...] = (probe.head,) if probe.head in CLOSED_FORM else SEARCHED
    if probe.head is not None and probe.head not in CLOSED_FORM:
        make_head(probe.head)  # finds a wrong name before anything is computed
        heads = ("ridge",)
    if len(places) == 1 and probe.head is not None:
        heads = ()
    return places, heads, given


def _check_pooling(source: Source, probe: Probe) -> None:
    """Refuse a pooling that is unknown, or that the source or its given layer has nothing for."""
    pooling = probe.pooling
    if pooling is None:
        return
    if pooling not in POOLINGS:
        raise SettingError(unknown("pooling", pooling, POOLINGS))
    layers = source.layers if probe.layer is None else probe.layer.split(JOIN)
    rows = all(len(source.layers.get(layer, (0, 0))) == 1 for layer in layers)
    if pooling != "flat" and (rows or not kind_of(source).pretrained):
        place = f"layer {probe.layer!r} of source" if probe.layer is not None and rows else "source"
        raise SettingError(
            f"pooling is {pooling!r} for {place} {source.name!r}, which has no feature maps of a network to pool, "
            "expected flat; leave it out"
        )
