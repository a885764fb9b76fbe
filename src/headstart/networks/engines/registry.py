"""Engines by name. Each is imported on use, because it brings its own heavy package."""

from __future__ import annotations

from headstart.errors import SettingError, nearest
from headstart.networks.contract import TrainableNetwork
from headstart.records import NetworkSpec
from headstart.system.optional import require
from headstart.system.threads import settle

__all__ = ["ENGINES", "make_network"]

ENGINES = ("scratch", "torch")


def make_network(spec: NetworkSpec, engine: str, seed: int = 0, device: str = "auto") -> TrainableNetwork:
    """Build a network in an engine, with random weights drawn from a seed.

    Parameters
    ----------
    spec : NetworkSpec
        The layers.
    engine : {'scratch', 'torch'}
        NumPy, always available; or PyTorch, in the extra ``train``.
    seed : int, default=0
        The same seed draws the same weights in both engines.
    device : {'auto', 'cpu', 'cuda', 'mps'}, default='auto'
        Where torch trains; NumPy uses the CPU only.

    Returns
    -------
    TrainableNetwork
        Untrained.

    Raises
    ------
    SettingError
        If the engine is unknown, or has no such device.
    MissingExtraError
        If the engine is 'torch' and torch is not installed.

    Examples
    --------
    >>> from headstart.networks.specs import architecture
    >>> from headstart.records import InputSpec
    >>> make_network(architecture("mlp", InputSpec(8, 8, 1), 5), "scratch").spec.n_classes
    5
    """
    if engine not in ENGINES:
        raise SettingError(
            f"engine is {engine!r}, expected one of {', '.join(ENGINES)}; {nearest(engine, ENGINES)}"
        )
    if engine == "scratch":
        if device not in ("auto", "cpu"):
            raise SettingError(
                f"device is {device!r}, which the engine scratch cannot use, expected cpu; or train with torch"
            )
        from headstart.networks.engines.numpy_engine import ScratchNetwork

        settle()
        return ScratchNetwork(spec, seed)
    require("torch", extra="train", for_="engine 'torch'")
    from headstart.networks.engines.torch_engine import TorchNetwork

    return TorchNetwork(spec, seed, device)
