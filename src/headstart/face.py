"""The Python face: ``hs.train`` and ``hs.transfer``, from names to a Model in one call.

In: names or Datasets. Out: Models. Called by users through the package.
"""

from __future__ import annotations

from dataclasses import replace

from headstart.cache import default_cache
from headstart.data.dataset import Dataset
from headstart.data.readers import load
from headstart.features import Extraction
from headstart.imaging.augment import parse_augmentation
from headstart.model import Model
from headstart.records import TrainSettings
from headstart.sources import open_source
from headstart.strategies import Probe, learn_head, learn_network

__all__ = ["train", "transfer"]


def train(
    data: str | Dataset,
    *,
    network: str = "cnn",
    engine: str = "torch",
    settings: TrainSettings | None = None,
    seed: int = 0,
) -> Model:
    """Train a network from nothing.

    Parameters
    ----------
    data : str or Dataset
        A name as ``headstart train`` takes it, or a dataset. Its ``test`` split is not looked at.
    network : {'cnn', 'mlp', 'mlp-wide'}, default='cnn'
        What to train.
    engine : {'torch', 'scratch'}, default='torch'
        What trains it.
    settings : TrainSettings, optional
        Default: five epochs of Adam.
    seed : int, default=0
        Same seed, same machine, same model.

    Returns
    -------
    Model
        Save it with ``model.save(folder)``.

    Raises
    ------
    HeadstartError
        Of the kind that fits.

    Examples
    --------
    >>> import headstart as hs
    >>> model = hs.train("digits:0-1", network="mlp", engine="scratch", settings=hs.TrainSettings(epochs=2))
    >>> model.classes
    ('0', '1')
    """
    dataset = load(data) if isinstance(data, str) else data
    chosen = replace(settings or TrainSettings(), seed=seed)
    return learn_network(dataset, network=network, engine=engine, settings=chosen).model


def transfer(
    source: str | Model,
    data: str | Dataset,
    *,
    tap: str | None = None,
    pooling: str | None = None,
    head: str | None = None,
    augment: str | None = None,
    balance: bool = False,
    seed: int = 0,
) -> Model:
    """Teach a frozen source new classes.

    Parameters
    ----------
    source : str or Model
        A name as ``headstart transfer`` takes it, or a model.
    data : str or Dataset
        What to learn. Its ``test`` split is not looked at.
    tap : str, optional
        Where features are read. Default: chosen by cross-validation where the source has candidates
        (networks of timm), else the source's own.
    pooling : {'flat', 'avg', 'grid2'}, optional
        How maps become a row of features. Default: chosen with the tap, else ``flat``.
    head : {'kernel', 'linear', 'mlp', 'neighbours', 'prototypes', 'ridge'}, optional
        What is fitted on the features. Default: chosen with the tap, else ``linear``.
    augment : str, optional
        Views to learn from beside the images, such as ``"photo"`` or ``"shear=0.2,zoom=0.2"``.
    balance : bool, default=False
        Let every class count alike, however many images it has.
    seed : int, default=0
        Same seed, same machine, same model.

    Returns
    -------
    Model
        The source's graph with the head appended.

    Raises
    ------
    HeadstartError
        Of the kind that fits.

    Examples
    --------
    >>> import headstart as hs
    >>> model = hs.transfer("pixels", "digits:0-1", head="ridge")
    >>> model.predict(hs.load("digits:0-1"))[:3].tolist()
    ['0', '1', '0']
    """
    dataset = load(data) if isinstance(data, str) else data
    frozen = source.source() if isinstance(source, Model) else open_source(source, dataset, seed)
    augmentation = None if augment is None else parse_augmentation(augment)
    probe = Probe(tap, pooling, head, augmentation, balance)
    return learn_head(frozen, dataset, probe, seed=seed, options=Extraction(default_cache())).model
