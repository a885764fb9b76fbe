"""The rule for fine-tuning: settings, augmentation and dropout by the data alone.

`FinetuneOptions` replace what it decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt

from headstart.data.images.augment import PRESETS, Augmentation, flip_warning, parse_augmentation
from headstart.records import InputSpec, Source, TrainSettings
from headstart.strategies.finetune.options import FinetuneOptions

__all__ = ["alpha_for", "augmentation_for", "dropout_for", "is_handwriting", "settings_for", "side_of"]

_SMALL_PX = 64  # side up to which images are small and a step costs milliseconds
_MANY, _MANY_SMALL = 5_000, 500  # photos, and small images, that say enough to follow them in everything
_SEEN_SMALL, _SEEN_PHOTOS = 5_000, 100  # images learnt from, times the square root of how many there are
_MOST_EPOCHS = 150  # of a handful of images; more cost time and give nothing
_PHOTO_PX = 224  # side of the photos that is meant for; smaller ones cost less, and more are seen
_DROPOUT_SMALL = 0.25  # as in the network `best`, whose own dropout lies above the places it is read at


def settings_for(
    n_images: int, side_px: int, opening: FinetuneOptions, seed: int, *, handwriting: bool = False
) -> TrainSettings:
    """The one recipe: only the length, the size of a batch and how far it goes depend on the data.

    Parameters
    ----------
    n_images : int
        To learn from.
    side_px : int
        Of what the network computes on: small images are cheap and get many views, photos few.
    opening : FinetuneOptions
        Its settings go before the rule's.
    seed : int
        Of order, views and mixup.
    handwriting : bool, default=False
        It is unlike whatever a network of photos has seen, so that goes further.

    Returns
    -------
    TrainSettings

    Notes
    -----
    In the manner of BiT's rule (Kolesnikov et al. 2020, arXiv:1912.11370): images seen grow with the square
    root of those there are, and half of what a smaller side saves goes into more of them. The head is fitted
    before anything is opened (Kumar et al. 2022, arXiv:2202.10054).

    Examples
    --------
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
    if small:  # cheap, so it may go far from where it started
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
        # of few, each is known by heart to the head already: what blurs them moves it off at the first step
        blur = {"label_smoothing": 0.0} if n_images < _MANY else {"mixup": 0.1, "batch_norm": "learn"}
        by_rule = replace(by_rule, **blur)
    return replace(by_rule, **opening.settings)


def side_of(source: Source) -> int:
    """Side in px of what a source's network computes on: it may enlarge its input itself."""
    own: int = source.notes.get("size_px", max(source.input.height_px, source.input.width_px))
    return own


def is_handwriting(spec: InputSpec) -> bool:
    """Grey images, and those put in the frame of handwritten characters, count as such; others as photos."""
    return spec.channels == 1 or spec.policy == "ink"


def alpha_for(n_images: int, source: Source, opening: FinetuneOptions) -> float:
    """How far the weights go along the line from before training to after it: of few photos half the way.

    A network of photos that meets other photos stands near a good place already; what a short training shakes
    out of it, the mean of before and after mostly keeps (Wortsman et al. 2022, arXiv:2109.01903).

    Parameters
    ----------
    n_images : int
        To learn from.
    source : Source
        Small images and handwriting go all the way.
    opening : FinetuneOptions
        Its own alpha goes before the rule's.

    Returns
    -------
    float
    """
    far = n_images >= _MANY or side_of(source) <= _SMALL_PX or is_handwriting(source.input)
    return (1.0 if far else 0.5) if opening.alpha is None else opening.alpha


def dropout_for(side_px: int, opening: FinetuneOptions) -> float:
    """Share of what the head reads that a step leaves out: of small images, which go far, a quarter.

    Parameters
    ----------
    side_px : int
        Of what the network computes on.
    opening : FinetuneOptions
        Its own share goes before the rule's.

    Returns
    -------
    float
    """
    by_rule = _DROPOUT_SMALL if side_px <= _SMALL_PX else 0.0
    return by_rule if opening.dropout is None else opening.dropout


def augmentation_for(spec: InputSpec, classes: Sequence[str], opening: FinetuneOptions) -> Augmentation:
    """What is done to training images: to handwriting what hands do, to photos what cameras do.

    Parameters
    ----------
    spec : InputSpec
        See `is_handwriting`.
    classes : sequence of str
        A mirror must not change what they mean.
    opening : FinetuneOptions
        Its own augmentation goes before the rule's.

    Returns
    -------
    Augmentation
    """
    if opening.augmentation is not None:
        return opening.augmentation
    if is_handwriting(spec):
        return parse_augmentation("many-hands", 1)
    photo = parse_augmentation(f"{PRESETS['photo']},blur=0", 1)
    return photo if flip_warning(classes, photo) is None else parse_augmentation("photo,blur=0,flip=0", 1)
