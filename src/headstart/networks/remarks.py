"""What went wrong in a training, seen in its history: a loss that is not finite, or nothing learned.

In: epochs, codes of the images, weights. Out: remarks. Must not import an engine: it knows only numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, log

import numpy as np

from headstart.errors import DivergedError
from headstart.records import Array, Codes, Epoch

__all__ = ["check_finite", "training_remarks"]

_LEVEL = 0.05  # of the test against the commonest class, one-sided
_ADVICE = "lower the learning rate, train for longer, or check the data with: headstart inspect DATA"


def check_finite(history: Sequence[Epoch], best: int | None, weights: Mapping[str, Array]) -> None:
    """Refuse a network that can answer nothing.

    Parameters
    ----------
    history : sequence of Epoch
        What happened.
    best : int or None
        Number of the epoch whose weights were kept; None for the last.
    weights : mapping of str to ndarray
        The weights that were kept.

    Raises
    ------
    DivergedError
        If a weight is not finite, or the validation loss with these weights, where there is one.
    """
    kept = history[(best or len(history)) - 1]
    unmeasured = np.isnan([kept.val_loss, kept.val_accuracy]).all()
    if all(np.isfinite(one).all() for one in weights.values()) and (unmeasured or isfinite(kept.val_loss)):
        return
    first = next((one for one in history if not isfinite(one.train_loss)), kept)
    loss = first.val_loss if isfinite(first.train_loss) else first.train_loss
    raise DivergedError(
        f"training diverged: loss is {loss} in epoch {first.number}, expected finite numbers; "
        f"lower the learning rate (now {first.learning_rate:.2g}) or clip the gradients; nothing was saved"
    )


def training_remarks(
    history: Sequence[Epoch], best: int | None, codes: Codes, held_codes: Codes | None
) -> tuple[str, ...]:
    """Say where training diverged, and where its network is no better than the commonest class.

    Parameters
    ----------
    history : sequence of Epoch
        What happened.
    best : int or None
        Number of the epoch whose weights were kept; None for the last.
    codes : ndarray of shape (n_images,), int64
        Classes of the images learned from.
    held_codes : ndarray of shape (n_held,), int64, or None
        Classes of the validation images. Without any, training accuracy is judged.

    Returns
    -------
    tuple of str
        Sentences; none where nothing is wrong.

    Notes
    -----
    Whether more images are right than the commonest class of the training images would get is a one-sided
    binomial test at 5 %.
    """
    kept = history[(best or len(history)) - 1]
    broken = [
        one.number
        for one in history
        if not isfinite(one.train_loss) or (held_codes is not None and not isfinite(one.val_loss))
    ]
    said = []
    if broken:
        said.append(
            f"Training diverged: the loss was not finite from epoch {broken[0]} on; the weights of epoch "
            f"{kept.number} were kept."
        )
    commonest = np.bincount(codes).argmax()
    judged, accuracy, loss = (
        (codes, kept.train_accuracy, kept.train_loss)
        if held_codes is None
        else (held_codes, kept.val_accuracy, kept.val_loss)
    )
    if not _beats(accuracy, float((judged == commonest).mean()), len(judged)):
        kind = "training" if held_codes is None else "validation"
        said.append(_nothing_learned(accuracy, float((judged == commonest).mean()), len(judged), kind)
                    + _loss_of_guessing(loss, codes) + f"; {_ADVICE}.")  # fmt: skip
    return tuple(said)


def _beats(accuracy: float, share: float, n_images: int) -> bool:
    """Whether so many right answers are significantly more than a fixed answer gets."""
    from scipy.special import bdtrc

    right = round(accuracy * n_images)
    if not isfinite(accuracy) or right <= share * n_images:
        return False
    return bool(bdtrc(right - 1, n_images, share) < _LEVEL)


def _nothing_learned(accuracy: float, share: float, n_images: int, kind: str) -> str:
    return (
        f"The network is not significantly better than always answering the commonest class: {accuracy:.2%} "
        f"of {n_images:,} {kind} images are right, the commonest class is right for {share:.2%}"
    )


def _loss_of_guessing(loss: float, codes: Codes) -> str:
    """Training that went the wrong way, and not only nowhere."""
    guess = log(len(np.unique(codes)))
    return f", and its loss of {loss:.3g} nats is above the {guess:.3g} of guessing" if loss > guess else ""
