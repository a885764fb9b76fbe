"""Faults of a training run that its history shows: a loss that is not finite, or nothing learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, log

import numpy as np

from headstart.errors import DivergedError
from headstart.records import Array, Codes, Epoch

__all__ = ["check_finite", "check_outputs", "training_remarks"]

_LEVEL = 0.05  # of the one-sided test against the most frequent class
_LARGEST = (
    1e12  # of outputs: their squares and sums of squares fit into float32, and no useful ones come near
)
_ADVICE = "lower the learning rate, train for longer, or check the data with: headstart inspect DATA"


def check_finite(history: Sequence[Epoch], best: int | None, weights: Mapping[str, Array]) -> None:
    """Raise DivergedError if a weight or the validation loss is not finite.

    ``best`` is the epoch whose weights were kept, None for the last.
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


def check_outputs(outputs: Array, learning_rate: float) -> Array:
    """The outputs; DivergedError if finite weights are so large that logits or features cannot be used."""
    largest = float(np.abs(outputs).max(initial=0.0))
    if not largest <= _LARGEST:  # NaN is not either
        raise DivergedError(
            f"training diverged: outputs of the network reach {largest:.2g}, expected finite numbers up to "
            f"{_LARGEST:g}; lower the learning rate (now {learning_rate:.2g}) or clip the gradients; nothing was "
            "saved"
        )
    return outputs


def training_remarks(
    history: Sequence[Epoch], best: int | None, codes: Codes, validation_codes: Codes | None
) -> tuple[str, ...]:
    """Sentences for a run that diverged, or whose network is not better than predicting the most frequent class.

    The latter is a one-sided binomial test at 5 %, on the validation images, or on the training images if
    ``validation_codes`` is None. ``best`` is the epoch whose weights were kept, None for the last.
    """
    kept = history[(best or len(history)) - 1]
    broken = [
        one.number
        for one in history
        if not isfinite(one.train_loss) or (validation_codes is not None and not isfinite(one.val_loss))
    ]
    remarks = []
    if broken:
        remarks.append(
            f"Training diverged: the loss was not finite from epoch {broken[0]} on; the weights of epoch "
            f"{kept.number} were kept."
        )
    measured, accuracy, loss = (
        (codes, kept.train_accuracy, kept.train_loss)
        if validation_codes is None
        else (validation_codes, kept.val_accuracy, kept.val_loss)
    )
    share = float((measured == np.bincount(codes).argmax()).mean())
    if not _is_above(accuracy, share, len(measured)):
        kind = "training" if validation_codes is None else "validation"
        remarks.append(
            _nothing_learned(accuracy, share, len(measured), kind)
            + _loss_of_guessing(loss, codes)
            + f"; {_ADVICE}."
        )
    return tuple(remarks)


def _is_above(accuracy: float, share: float, n_images: int) -> bool:
    """Whether the accuracy is significantly above that of a constant prediction."""
    from scipy.special import bdtrc

    right = round(accuracy * n_images)
    if not isfinite(accuracy) or right <= share * n_images:
        return False
    return bool(bdtrc(right - 1, n_images, share) < _LEVEL)


def _nothing_learned(accuracy: float, share: float, n_images: int, kind: str) -> str:
    return (
        f"The network is not significantly better than always predicting the most frequent class: {accuracy:.2%} "
        f"of {n_images:,} {kind} images are right, the most frequent class is right for {share:.2%}"
    )


def _loss_of_guessing(loss: float, codes: Codes) -> str:
    """A further clause for a loss that is worse than guessing."""
    guess = log(len(np.unique(codes)))
    return f", and its loss of {loss:.3g} nats is above the {guess:.3g} of guessing" if loss > guess else ""
