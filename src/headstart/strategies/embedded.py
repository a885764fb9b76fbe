"""A probe on features that are known already: layer and pooling are fixed, and what needs pixels is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from headstart.data.dataset import Dataset
from headstart.data.embedded.images import FeatureTable, table_of
from headstart.data.readable import why_no_pixels
from headstart.errors import SettingError
from headstart.records import Source
from headstart.sources.embedded import with_known_features
from headstart.sources.features import Extraction
from headstart.strategies.places import Probe

__all__ = ["WITHOUT_CONTROLS", "about_features", "left_out_sentence", "on_known_features"]

WITHOUT_CONTROLS = (
    "Controls that compute from images were left out, so how transfer compares with them is unknown."
)
"""The end of a verdict where `left_out_sentence` names some."""


def on_known_features(
    source: Source,
    datasets: Sequence[Dataset],
    probe: Probe,
    options: Extraction,
    *,
    finetune: bool = False,
) -> tuple[Probe, Extraction]:
    """Probe and options for datasets some of which have features alone; unchanged where all have images.

    SettingError for another layer or pooling than these were read at, and without pixels for augmentation and
    fine-tuning; SourceError if they are of another source.
    """
    options, place = with_known_features(source, datasets, options)
    if place is None:
        return probe, options
    table = next(one for one in (table_of(dataset.images) for dataset in datasets) if one is not None)
    for name, wanted, known in zip(("layer", "pooling"), (probe.layer, probe.pooling), place, strict=True):
        if wanted not in (None, known):
            raise SettingError(
                f"{name} is {wanted!r} for the features {table.name!r}, which were read at {', '.join(place)}, "
                f"expected {known!r}; leave it out, or compute features at the other {name}"
            )
    for dataset in datasets:
        reason = why_no_pixels(dataset.images)
        needs = ["augmented copies"] * (probe.augmentation is not None) + ["fine-tuning"] * finetune
        if table_of(dataset.images) is None:
            raise SettingError(
                f"dataset {dataset.name!r} has images and {table.name!r} has features, expected features of both; "
                "compute those of the first with headstart embed"
            )
        if reason is not None and needs:
            raise SettingError(
                f"dataset {dataset.name!r} has features alone ({reason}), expected images for {needs[0]}; put them "
                "back, or leave the option out"
            )
    return replace(probe, layer=place[0], pooling=place[1]), options


def left_out_sentence(names: Sequence[str], *datasets: Dataset) -> tuple[str, ...]:
    """That some controls are left out because they compute from pixels; empty if none is."""
    reason = next((one for one in (why_no_pixels(dataset.images) for dataset in datasets) if one), None)
    if reason is None or not names:
        return ()
    listed = " and ".join([part for part in (", ".join(names[:-1]), names[-1]) if part])
    are = f"The control {listed} is" if len(names) == 1 else f"The controls {listed} are"
    return (f"{are} left out, because the images are not there, only their features ({reason}).",)


def about_features(*datasets: Dataset) -> dict[str, str]:
    """The fact of a report that features were read and not computed; empty where they were computed."""
    tables: list[FeatureTable] = []
    for dataset in datasets:
        table = table_of(dataset.images)
        if table is not None and table not in tables:
            tables.append(table)
    return {"features": "; ".join(table.about for table in tables)} if tables else {}
