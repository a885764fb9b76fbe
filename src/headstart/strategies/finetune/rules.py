"""Rules for the settings of fine-tuning, by the data alone; `FinetuneOptions` replace what they decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt

from headstart.data.images.augment import PRESETS, Augmentation, flip_warning, parse_augmentation
from headstart.records import InputSpec, Source, TrainSettings
from headstart.strategies.finetune.options import FinetuneOptions

__all__ = ["alpha_for", "augmentation_for", "dropout_for", "is_handwriting", "settings_for", "side_of"]

_SMALL_PX = 64  # side up to which images count as small: a step takes milliseconds
_MANY, _MANY_SMALL = 5_000, 500  # photos and small images from which on the rules for few do not apply
_SEEN_SMALL, _SEEN_PHOTOS = 5_000, 100  # images seen in training, per square root of their number
_MOST_EPOCHS = 150  # more epochs gain nothing on a few images
_PHOTO_PX = 224  # side of the photos that _SEEN_PHOTOS is for; of smaller ones more are seen
_DROPOUT_SMALL = 0.25  # as in the network `best`, whose own dropout is above the layers that are read


def settings_for(
    n_images: int, side_px: int, finetune: FinetuneOptions, seed: int, *, handwriting: bool = False
) -> TrainSettings:
    """Settings for ``n_images`` training images; ``side_px`` is the side that the network computes on.

    As in BiT's rule (Kolesnikov et al. 2020, arXiv:1912.11370), the images seen grow with the square root
    of the number of images, and half of what a smaller side saves is spent on more of them. The head is
    fitted before anything is unfrozen (Kumar et al. 2022, arXiv:2202.10054). Handwriting is unlike photos,
    so a network of photos is trained at a higher rate on it.

    >>> settings_for(1_000, 28, FinetuneOptions(), 0).epochs
    150
    """
    small = side_px <= _SMALL_PX
    photos = _SEEN_PHOTOS * max(1.0, _PHOTO_PX / side_px)
    seen = (_SEEN_SMALL if small else photos) * sqrt(n_images)
    shared = TrainSettings(
        epochs=min(_MOST_EPOCHS, max(3, round(seen / n_images))),
        optimizer="adamw",
        schedule="cosine",
        weight_decay=0.01,
        label_smoothing=0.05,
        clip=1.0,
        seed=seed,
    )
    if small:  # cheap, so many epochs and a high rate
        by_rule = replace(
            shared,
            batch_size=min(64, max(8, n_images // 2)),
            learning_rate=4e-3,
            gradual=0.1,
            batch_norm="learn" if n_images >= _MANY_SMALL else "frozen",
        )
    else:
        by_rule = replace(
            shared,
            batch_size=min(16, max(8, n_images // 2)),
            learning_rate=3e-4 if handwriting else 1e-4,
            layer_decay=0.8,
            gradual=0.3,
            ema=0.98,
            batch_norm="frozen",
        )
        # the head already fits few images exactly: smoothing would move it away at the first step
        smoothing = {"label_smoothing": 0.0} if n_images < _MANY else {"mixup": 0.1, "batch_norm": "learn"}
        by_rule = replace(by_rule, **smoothing)
    return replace(by_rule, **finetune.settings)


def side_of(source: Source) -> int:
    """Side in px that a source's network computes on: it may enlarge its input itself."""
    own: int = source.notes.get("size_px", max(source.input.height_px, source.input.width_px))
    return own


def is_handwriting(spec: InputSpec) -> bool:
    """Whether images count as handwriting: grey ones, and those prepared by the policy ``ink``."""
    return spec.channels == 1 or spec.policy == "ink"


def alpha_for(n_images: int, source: Source, finetune: FinetuneOptions) -> float:
    """How far weights are interpolated from before training to after it: half the way for few photos.

    A network of photos is near a good solution for other photos already; the mean of before and after keeps
    most of what a short training would lose (Wortsman et al. 2022, arXiv:2109.01903).
    """
    far = n_images >= _MANY or side_of(source) <= _SMALL_PX or is_handwriting(source.input)
    return (1.0 if far else 0.5) if finetune.alpha is None else finetune.alpha


def dropout_for(side_px: int, finetune: FinetuneOptions) -> float:
    """Share of the head's inputs that a step drops: a quarter for small images, none for others."""
    by_rule = _DROPOUT_SMALL if side_px <= _SMALL_PX else 0.0
    return by_rule if finetune.dropout is None else finetune.dropout


def augmentation_for(spec: InputSpec, classes: Sequence[str], finetune: FinetuneOptions) -> Augmentation:
    """Augmentation for handwriting or for photos, without flips if they change the meaning of a class."""
    if finetune.augmentation is not None:
        return finetune.augmentation
    if is_handwriting(spec):
        return parse_augmentation("many-hands", 1)
    photo = parse_augmentation(f"{PRESETS['photo']},blur=0", 1)
    return photo if flip_warning(classes, photo) is None else parse_augmentation("photo,blur=0,flip=0", 1)
