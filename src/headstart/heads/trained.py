"""A head whose weights were learned elsewhere, by training a network with it."""

from __future__ import annotations

from collections.abc import Sequence

from headstart.errors import SettingError
from headstart.heads.base import AffineHead, Watch
from headstart.heads.training import Training
from headstart.records import Array

__all__ = ["TrainedHead"]


class TrainedHead(AffineHead):
    """Softmax of features @ weight (n_features, n_classes) + bias (n_classes,), as given.

    >>> import numpy as np
    >>> head = TrainedHead(np.eye(2, dtype=np.float32), np.zeros(2, np.float32), ("ant", "bee"))
    >>> head.predict(np.array([[0.0, 1.0]], np.float32)).tolist()
    ['bee']
    """

    name = "linear"

    def __init__(self, weight: Array, bias: Array, classes: Sequence[str]) -> None:
        self.weight_, self.bias_, self.classes_ = weight, bias, tuple(classes)
        self.chosen_, self.curve_ = {}, None

    def _fit(self, training: Training, watch: Watch | None) -> None:
        raise SettingError("head was trained with its network, expected no call of fit(); use another head")
