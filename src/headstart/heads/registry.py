"""The registry of heads by name: a new head is one module and one line here."""

from __future__ import annotations

from collections.abc import Callable

from headstart.errors import SettingError, unknown
from headstart.heads.base import Head
from headstart.heads.distances import NeighboursHead, PrototypesHead
from headstart.heads.linear import LinearHead
from headstart.heads.mlp import MLPHead
from headstart.heads.ridge import KernelHead, RidgeHead

__all__ = ["HEADS", "SEARCHED", "make_head"]

_CLASSES: tuple[type[Head], ...] = (
    RidgeHead,
    KernelHead,
    NeighboursHead,
    LinearHead,
    MLPHead,
    PrototypesHead,
)  # in the order in which selection tries them

HEADS: dict[str, Callable[[], Head]] = {
    head.name: head for head in sorted(_CLASSES, key=lambda one: one.name)
}

SEARCHED = tuple(head.name for head in _CLASSES if head.held_out is not Head.held_out)
"""Heads that selection tries: their held-out scores have a closed form, so trying them costs one fit."""


def make_head(name: str) -> Head:
    """A new head by name, with its default settings.

    Parameters
    ----------
    name : str
        One of `HEADS`.

    Returns
    -------
    Head
        Not fitted.

    Raises
    ------
    SettingError
        If the name is unknown.

    Examples
    --------
    >>> make_head("ridge").name
    'ridge'
    """
    if name not in HEADS:
        raise SettingError(unknown("head", name, HEADS))
    return HEADS[name]()
