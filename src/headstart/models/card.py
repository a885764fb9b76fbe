"""The model card: one page of Markdown to read before a model is used. The same model gives the same text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headstart.models.manifest import Manifest
from headstart.models.novelty_rate import novelty_sentence

__all__ = ["render_card"]


def render_card(manifest: Manifest) -> str:
    """A card with a YAML header, in the Hugging Face hub's format, made from the manifest alone."""
    size = manifest.input
    lines = [
        "---",
        "library_name: headstart",
        "pipeline_tag: image-classification",
        "---",
        "",
        f"# {manifest.name}",
        "",
        f"Classifies images into {len(manifest.classes)} classes: {', '.join(manifest.classes)}.",
        "",
        f"- Strategy: {manifest.strategy}",
        f"- Input: {size.height_px} x {size.width_px} px, {size.channels} channel(s), policy {size.policy}",
        f"- Learned from: {manifest.data.get('name')} ({manifest.data.get('n_images')} images, "
        f"fingerprint {str(manifest.data.get('fingerprint'))[:12]})",
    ]
    if manifest.source:
        name = str(manifest.source.get("name")).removesuffix(", fine-tuned")
        lines.append(
            f"- Source: {name}, layer {manifest.source.get('tap')} "
            f"(fingerprint {str(manifest.source.get('fingerprint'))[:12]}), {_state(manifest)}"
        )
        lines += _precision(manifest.source)
    if "unlabelled" in manifest.data:
        others = manifest.data["unlabelled"]
        lines.append(f"- Unlabelled images: {others['n_images']} of {others['name']}")
    lines += _heads(manifest.head)
    lines += [f"- {name.replace('_', ' ')}: {value:.4f}" for name, value in sorted(manifest.scores.items())]
    lines += _trust(manifest)
    lines += [
        "",
        "## Limits",
        "",
        _limits(manifest),
        "",
        "## Use",
        "",
        "```",
        "headstart predict MODEL image.png",
        "```",
        "",
    ]
    return "\n".join(lines)


def _heads(head: Mapping[str, Any]) -> list[str]:
    """The head with its settings; of a mean a line for each."""
    line = f"- Head: {head.get('name')} " + _pairs(head.get("chosen", {}))
    if "heads" not in head:
        return [line]
    parts = [
        f"{one['name']} on {one['tap']} ({one['pooling']}) {_pairs(one['chosen'])}" for one in head["heads"]
    ]
    return [line.rstrip(), *(f"  - {part.rstrip()}" for part in parts)]


def _precision(source: Mapping[str, Any]) -> list[str]:
    """The precision, where it is not fp32."""
    if "precision" not in source:
        return []
    calibrated = f", calibrated on {source['calibrated_on']}" if "calibrated_on" in source else ""
    return [f"- Precision: {source['precision']}{calibrated}"]


def _state(manifest: Manifest) -> str:
    """Whether the source network is frozen or fine-tuned."""
    if manifest.strategy != "finetune":
        return "frozen"
    unfrozen, parts = (manifest.settings.get(name) for name in ("opened_parts", "parts"))
    return "fine-tuned" if unfrozen is None else f"fine-tuned ({unfrozen} of {parts} parts unfrozen)"


def _trust(manifest: Manifest) -> list[str]:
    """How well calibrated the probabilities of held-out images are."""
    after = manifest.calibration.get("after")
    if after is None:
        return []
    return [
        f"- Probabilities on {after['n']:,} held-out images: calibration error {after['ece']:.4f}, "
        f"Brier score {after['brier']:.4f}, loss {after['nll']:.4f} nats"
    ]


def _limits(manifest: Manifest) -> str:
    refused = novelty_sentence(manifest)
    if refused is None:
        text = "The model predicts one of its classes for any image."
    else:
        text = f"Images unlike all training images are predicted as `none of these`. {refused}"
    text += _sets(manifest.answer_sets)
    return (
        f"{text} The figures above are from images held out of training, not from a test set: "
        "evaluate the model on your own with `headstart evaluate`. A few training images are in the folder "
        "(`samples.safetensors`), for checking exports. Digests and descriptors of the images "
        "(`learned.safetensors`) let `headstart evaluate` recognise the training images."
    )


def _sets(note: Mapping[str, Any]) -> str:
    """How many images answer sets rest on."""
    if not note:
        return ""
    return (
        f" Answer sets (`headstart predict MODEL image.png --sets 0.95`) are from {note['n_images']:,} "
        f"{note['images']} images, and hold for images of the same origin."
    )


def _pairs(values: dict[str, float]) -> str:
    return "(" + ", ".join(f"{key} {value:g}" for key, value in values.items()) + ")" if values else ""
