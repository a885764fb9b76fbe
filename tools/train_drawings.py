"""The recipe of the bundled source ``drawings``: how its weights came to be, run again with one command.

A small convolutional network learns to tell apart the 218 characters of Omniglot's small background sets
that are not Greek (so that the Greek letters of the tutorials stay strange to it), each drawn by 20 people,
brought into the frame of MNIST by ``ink`` and seen in another hand every epoch. What is kept are the
convolutions, as float16. Before that the same training without two alphabets is judged on them: three
unknown characters are taught from nine people's drawings and eleven other people's are read.

    python tools/train_drawings.py        writes src/headstart/sources/drawings/drawings.safetensors
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
from safetensors.numpy import save_file

from headstart.data.dataset import Dataset
from headstart.data.images.augment import augment, parse_augmentation
from headstart.data.images.prepare import prepare
from headstart.data.readers.load import from_arrays, load
from headstart.graph import layers
from headstart.heads.registry import make_head
from headstart.networks.contract import TrainableNetwork
from headstart.networks.engines.registry import make_network
from headstart.networks.specs import architecture
from headstart.networks.training import fit
from headstart.records import InputSpec, TrainSettings
from headstart.sources.features import extract
from headstart.sources.networks import spec_source

TARGET = Path(__file__).parents[1] / "src/headstart/sources/drawings/drawings.safetensors"
INPUT = InputSpec(28, 28, 1, policy="ink")
WIDTHS = {"conv1": 48, "conv2": 96, "conv3": 128}
KEPT = "block3"
SETTINGS = TrainSettings(
    epochs=60, batch_size=128, learning_rate=6e-3, schedule="one-cycle", label_smoothing=0.05
)
JUDGES = ("Balinese", "Tagalog")


def trained(data: Dataset) -> TrainableNetwork:
    """The network, from nothing."""
    spec = architecture("cnn", INPUT, len(data.classes))
    layers = [
        replace(layer, options={**layer.options, "channels": WIDTHS[layer.name]})
        if layer.name in WIDTHS
        else layer
        for layer in spec.layers
    ]
    network = make_network(replace(spec, layers=tuple(layers)), "torch", 0)
    images, augmentation = prepare(data, INPUT), parse_augmentation("handwriting", 1)
    begun = perf_counter()
    history = fit(
        network,
        images,
        data.codes(),
        SETTINGS,
        augment=lambda batch, indices, epoch: augment(
            batch, augmentation, seed=0, indices=indices, copy=epoch
        ),
    )
    print(
        f"{len(data)} drawings of {len(data.classes)} characters: {perf_counter() - begun:.0f} s, "
        f"training accuracy {history[-1].train_accuracy:.4f}",
        flush=True,
    )
    return network


def judged(network: TrainableNetwork, unknown: Dataset) -> tuple[float, float]:
    """Accuracy on eleven people's drawings of three characters that nine taught; mean and spread of 40."""
    source = spec_source("drawings", network.spec, layers.network_graph(network.spec, network.weights()))
    drawn = from_arrays(prepare(unknown, INPUT), unknown.labels)
    rows = extract(drawn, source, layer=KEPT, pooling="flat")
    assert unknown.groups is not None
    person = np.array([int(group[-2:]) for group in unknown.groups])
    rng, right = np.random.default_rng(0), []
    for _ in range(40):
        taught = np.isin(unknown.labels, rng.choice(unknown.classes, 3, replace=False))
        hands = rng.permutation(20)[:9] + 1
        learn, asked = taught & np.isin(person, hands), taught & ~np.isin(person, hands)
        head = make_head("ridge").fit(rows[learn], unknown.labels[learn])
        right.append((head.predict(rows[asked]) == unknown.labels[asked]).mean())
    return float(np.mean(right)), float(np.std(right))


def without(data: Dataset, alphabets: tuple[str, ...], *, inverse: bool = False) -> Dataset:
    """The drawings of all alphabets but these; or of these alone."""
    there = np.isin([name.split("/")[0] for name in data.labels], alphabets)
    part = data.subset(np.flatnonzero(there if inverse else ~there))
    return replace(part, classes=tuple(sorted(set(part.labels.tolist()))))


def main() -> None:
    """Judge, train, write."""
    known = without(load("omniglot-small"), ("Greek",))
    if "--no-check" not in sys.argv:
        mean, spread = judged(trained(without(known, JUDGES)), without(known, JUDGES, inverse=True))
        print(f"three unknown characters, nine drawings each: {mean:.4f} +- {spread:.4f}", flush=True)
    network = trained(known)
    names = network.spec.layer_names[: network.spec.layer_names.index(KEPT) + 1]
    weights = {
        name: value.astype(np.float16)
        for name, value in network.weights().items()
        if name.partition(".")[0] in names
    }
    save_file(weights, TARGET)
    print(f"{TARGET}: {TARGET.stat().st_size} bytes, {sum(value.size for value in weights.values())} weights")


if __name__ == "__main__":
    main()
