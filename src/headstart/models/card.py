"""The model card: one page of Markdown a person reads before using a model.

In: a Manifest. Out: text, the same for the same model (no dates). Called by model.
"""

from __future__ import annotations

from headstart.models.manifest import Manifest

__all__ = ["render_card"]


def render_card(manifest: Manifest) -> str:
    """A card in the hub's format, from the manifest alone.

    Parameters
    ----------
    manifest : Manifest
        Of a model that is being saved.

    Returns
    -------
    str
        Markdown with a YAML header.
    """
    size = manifest.input
    lines = [
        "---",
        "library_name: headstart",
        "pipeline_tag: image-classification",
        "---",
        "",
        f"# {manifest.name}",
        "",
        f"Tells apart {len(manifest.classes)} classes: {', '.join(manifest.classes)}.",
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
    lines.append(f"- Head: {manifest.head.get('name')} " + _pairs(manifest.head.get("chosen", {})))
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
        "headstart predict MODEL picture.png",
        "```",
        "",
    ]
    return "\n".join(lines)


def _state(manifest: Manifest) -> str:
    """Whether the source's weights are those that it came with."""
    if manifest.strategy != "finetune":
        return "frozen"
    unfrozen, parts = (manifest.settings.get(name) for name in ("opened_parts", "parts"))
    return "fine-tuned" if unfrozen is None else f"fine-tuned ({unfrozen} of {parts} parts unfrozen)"


def _trust(manifest: Manifest) -> list[str]:
    """What was measured of its probabilities on images held out."""
    after = manifest.calibration.get("after")
    if after is None:
        return []
    return [
        f"- Probabilities on {after['n']:,} images held out: calibration error {after['ece']:.4f}, "
        f"Brier score {after['brier']:.4f}, loss {after['nll']:.4f} nats"
    ]


def _limits(manifest: Manifest) -> str:
    if manifest.novelty:
        said = (
            "Pictures unlike all it learnt from are answered `none of these`, and so is one in "
            f"{1 / manifest.novelty['false_rejection']:.0f} of its classes from where its training images "
            "came; of strangers' pictures it refuses more."
        )
    else:
        said = "It answers with one of its classes whatever image it is given."
    return (
        f"{said} The figures above are from images held out of training, not from the test split: measure it "
        "on yours with `headstart evaluate`. A few of the images it learnt from lie in the folder "
        "(`samples.safetensors`): exports are checked with them. Digests and descriptors of the images "
        "(`learned.safetensors`) let `headstart evaluate` recognise what it learned from."
    )


def _pairs(values: dict[str, float]) -> str:
    return "(" + ", ".join(f"{key} {value:g}" for key, value in values.items()) + ")" if values else ""
