"""Heads by name: in comes a name, out a head to fit.

Must not import a network or a graph: a head works on numbers. Called by strategies, study and the
command line.
"""

from __future__ import annotations

from collections.abc import Callable

from headstart.errors import SettingError, unknown
from headstart.heads.base import Head
from headstart.heads.distances import NeighboursHead, PrototypesHead
from headstart.heads.linear import LinearHead
from headstart.heads.mlp import MLPHead
from headstart.heads.ridge import KernelHead, RidgeHead

__all__ = ["HEADS", "SEARCHED", "make_head"]

HEADS: dict[str, Callable[[], Head]] = {
    head.name: head for head in (KernelHead, LinearHead, MLPHead, NeighboursHead, PrototypesHead, RidgeHead)
}

SEARCHED = ("ridge", "kernel", "neighbours")
"""Heads that selection tries: their held-out scores have a closed form, so trying them costs one fit."""


def make_head(name: str) -> Head:
    """A new head by name, with its default settings.

    Parameters
    ----------
    name : {'kernel', 'linear', 'mlp', 'neighbours', 'prototypes', 'ridge'}
        Which kind.

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
