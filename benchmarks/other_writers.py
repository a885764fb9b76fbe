"""Which layers generalise to other people: Omniglot's characters from few writers, tested on all others.

As in the recipe greek, a network learns augmented digits; three characters of one alphabet are taught from one
drawing of each by 3 or by 9 writers, with 20 augmented copies, and tested on the drawings by the other writers, once
as they are and once as photographed (see `greek_choices`). The mean over alphabets and draws.

    HEADSTART_DATA=... python benchmarks/other_writers.py            (about ten minutes; needs the extra train)
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from greek_choices import photographed
from machine import facts, told

from headstart.data.dataset import Dataset
from headstart.data.images.augment import parse_augmentation
from headstart.data.images.ink import ink
from headstart.data.readers.load import from_arrays, load
from headstart.records import Source
from headstart.strategies.fits import Reader, averaged
from headstart.strategies.places import Reading
from headstart.strategies.scratch import learn_network
from headstart.workflows.recipes.recipe import LettersRecipe, read_recipe

_LAYERS = ("block2", "block3", "hidden1")
_PLACES = (*_LAYERS, "block2+block3", "block3+hidden1", "block2+block3+hidden1")
_WRITERS = (3, 9)


def network_of_digits(epochs: int | None) -> Source:
    """The source of the recipe greek."""
    recipe = read_recipe("greek")
    assert isinstance(recipe, LettersRecipe), "greek is one"
    digits = replace(load("mnist").split("train"), splits=None)
    settings = recipe.training if epochs is None else replace(recipe.training, epochs=epochs)
    augmentation = parse_augmentation(recipe.augment, 1)
    return learn_network(
        digits, network=recipe.network, engine=recipe.engine, settings=settings, augmentation=augmentation
    ).model.source()


def triple(characters: Dataset, number: int) -> Dataset:
    """All drawings of three characters of one alphabet, prepared as the recipe does."""
    rng = np.random.default_rng(number)
    alphabets = np.array([name.rpartition("/")[0] for name in characters.classes])
    names = np.unique(alphabets)
    chosen = rng.choice(
        np.array(characters.classes)[alphabets == names[number % len(names)]], 3, replace=False
    )
    some = characters.subset(np.flatnonzero(np.isin(characters.labels, chosen)))
    pixels = ink(np.stack([some.images.image(place) for place in range(len(some))]), 28, 28)
    return from_arrays(pixels, some.labels, groups=some.groups)


def accuracies(source: Source, characters: Dataset, number: int, n_writers: int) -> dict[str, list[float]]:
    """Accuracy in % by what is read, unchanged and photographed."""
    data = triple(characters, number)
    assert data.groups is not None and data.images.pixels is not None, "drawings have writers"
    writers = np.random.default_rng([number, 1]).permutation(np.unique(data.groups))
    known = np.isin(data.groups, writers[:n_writers])
    few, rest = data.subset(np.flatnonzero(known)), data.subset(np.flatnonzero(~known))
    assert rest.images.pixels is not None, "drawings of one size"
    photos = from_arrays(photographed(rest.images.pixels, number), rest.labels)
    augmentation = parse_augmentation("handwriting", 20)
    readers = [Reader(source, few, one, augmentation=augmentation, seed=number) for one in (rest, photos)]
    ways = {place: (Reading((place, "flat"), "ridge"),) for place in _PLACES}
    ways["mean of three heads"] = tuple(Reading((layer, "flat"), "ridge") for layer in _LAYERS)
    everyone, found = np.arange(len(few)), {}
    for name, readings in ways.items():
        hits = [
            averaged(one, readings, everyone, np.arange(len(rest)), 0, balance=False).argmax(axis=1)
            == one.test.codes(few.classes)
            for one in readers
        ]
        found[name] = [100 * float(one.mean()) for one in hits]
    return found


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--triples", type=int, default=60)
    parser.add_argument("--epochs", type=int, help="of the network; default: the recipe's")
    options = parser.parse_args(given)
    about, characters = facts("numpy", "torch", "openvino"), load("omniglot-small")
    source, lines = network_of_digits(options.epochs), []
    for n_writers in _WRITERS:
        each = [accuracies(source, characters, number, n_writers) for number in range(options.triples)]
        for name in each[0]:
            plain, photographs = np.mean([one[name] for one in each], axis=0)
            line = {"writers": n_writers, "read": name, "unchanged": round(float(plain), 2)}
            lines.append(line | {"photographed": round(float(photographs), 2)})
            print(" ".join(f"{key} {value}" for key, value in lines[-1].items()), flush=True)
    told(about, {}, lines=lines, triples=options.triples)


if __name__ == "__main__":
    main()
