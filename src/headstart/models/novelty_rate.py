"""The share of known images that a model may refuse as none of these: another one, or no refusal at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from headstart.errors import ModelError, SettingError
from headstart.evaluation.conformal import conformal_threshold
from headstart.models.manifest import Manifest

__all__ = ["OFF", "NoveltyRate", "at_novelty_rate", "checked_rate", "novelty_sentence"]

OFF = "off"
NoveltyRate = float | str | None
"""A share in (0, 1); ``off`` for none; None for the share of the model."""
_FEW_GROUPS = 10


def checked_rate(rate: NoveltyRate) -> NoveltyRate:
    """A share as a number, ``off`` or None; SettingError for anything else.

    >>> checked_rate("0.1"), checked_rate("off")
    (0.1, 'off')
    """
    if rate is None or rate == OFF:
        return rate
    try:
        share = float(rate)
    except (TypeError, ValueError):
        share = np.nan
    if isinstance(rate, bool) or not 0 < share < 1:
        raise SettingError(
            f"novelty rate is {rate!r}, expected a share in (0, 1), or off; give one such as 0.05"
        )
    return share


def at_novelty_rate(manifest: Manifest, graph: bytes, rate: NoveltyRate) -> tuple[Manifest, bytes]:
    """Manifest and graph of a model with another share of known images that may be refused; None changes nothing.

    ModelError for a model without novelty detection, or one that is older than its stored left-out scores.
    """
    share = checked_rate(rate)
    if share is None or share == manifest.novelty.get("false_rejection"):
        return manifest, graph
    if isinstance(share, str):
        if not manifest.novelty:
            return manifest, graph
        return replace(manifest, novelty={}), _changed(graph, None)
    left_out = manifest.novelty.get("left_out")
    if not left_out:
        what = "no novelty detection" if not manifest.novelty else "no left-out scores of its novelty"
        raise ModelError(
            f"model {manifest.name!r} has {what}, expected novelty detection with stored left-out scores; "
            "make it again from 8 images or more, or leave the novelty rate out"
        )
    threshold = min(conformal_threshold(left_out, 1 - share), left_out[-1])
    scaled = [one / threshold for one in left_out]
    note = {**manifest.novelty, "false_rejection": share, "left_out": scaled}
    return replace(manifest, novelty=note), _changed(graph, threshold)


def novelty_sentence(manifest: Manifest) -> str | None:
    """For which images the share of refused ones holds: a matter of where the training images came from."""
    if not manifest.novelty:
        return None
    share, n_held = manifest.novelty["false_rejection"], manifest.novelty.get("n_held", 0)
    few = ""
    if 0 < n_held < 1 / share - 1:
        few = f" Only {n_held} images set the threshold: up to one in {n_held + 1} is refused whatever the rate."
    return _origin(f"{100 * share:.3g} %", manifest.data.get("n_groups", 0)) + few


def _origin(share: str, n_groups: int) -> str:
    refused = f"Up to {share} of the images of the model's classes may be refused as none of these"
    if n_groups == 0:
        return (
            f"{refused} if they are of the same hands or cameras as the training images. Which these are is not "
            "known (no groups are given): if there was only one, more images of others are refused."
        )
    if n_groups == 1:
        return (
            f"All training images are of one group (one hand or one camera): up to {share} of its images may be "
            "refused as none of these, and more images of others. Add images of other groups."
        )
    if n_groups < _FEW_GROUPS:
        return f"{refused} if they are of groups like the {n_groups} of the training images, else more."
    return (
        f"{refused}, also of new groups: whole groups of the {n_groups} were left out to set the threshold."
    )


def _changed(graph: bytes, threshold: float | None) -> bytes:
    """The graph with its novelty divided by a threshold, or without novelty."""
    import onnx

    from headstart.graph import build

    builder = build.GraphBuilder(onnx.ModelProto.FromString(graph))
    outputs = [build.PROBABILITIES]
    if threshold is not None:
        stored = _free_name(builder)
        builder.rename(build.NOVELTY, stored)
        factor = builder.constant(f"{stored}.threshold", np.array([threshold], np.float32))
        builder.add("Div", stored, factor, name=build.NOVELTY)
        outputs.append(build.NOVELTY)
    return bytes(builder.model(outputs).SerializeToString(deterministic=True))


def _free_name(builder: Any) -> str:
    """A name for the novelty at the rate so far."""
    number = 1
    while builder.has(f"novelty.at_rate{number}"):
        number += 1
    return f"novelty.at_rate{number}"
