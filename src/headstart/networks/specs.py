"""The named networks, as specs that every engine and the graph builder read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

from headstart.errors import SettingError, UnknownLayerError, nearest
from headstart.records import InputSpec, LayerSpec, NetworkSpec, TrainSettings

__all__ = [
    "ARCHITECTURES",
    "architecture",
    "check_freezable",
    "layer_shapes",
    "training_for",
    "with_classes",
]


def _mlp(image: InputSpec, n_classes: int) -> NetworkSpec:
    return NetworkSpec(
        "mlp", image, (LayerSpec("flatten", "flatten"), *_hidden((128, 64)), _output(n_classes))
    )


def _mlp_wide(image: InputSpec, n_classes: int) -> NetworkSpec:
    """Wider, with dropout: the best MLP on clean digits without augmentation."""
    layers = (LayerSpec("flatten", "flatten"), *_hidden((512, 128), dropout=0.25), _output(n_classes))
    return NetworkSpec("mlp-wide", image, layers)


def _hidden(units: tuple[int, ...], dropout: float = 0.0) -> tuple[LayerSpec, ...]:
    layers: list[LayerSpec] = []
    for number, width in enumerate(units, start=1):
        layers += [
            LayerSpec("dense", f"dense{number}", {"units": width}),
            LayerSpec("relu", f"hidden{number}"),
        ]
        if dropout:
            layers.append(LayerSpec("dropout", f"dropout{number}", {"rate": dropout}))
    return tuple(layers)


def _output(n_classes: int) -> LayerSpec:
    return LayerSpec("dense", "output", {"units": n_classes})


def _cnn(image: InputSpec, n_classes: int) -> NetworkSpec:
    """Conv 32 - pool - conv 64 - pool - conv 64 - flatten - dense 64, all ReLU: the textbook's network.

    Pooling comes before the ReLU. This changes no value, as both only select or clip, and saves three quarters of
    the ReLU's work.
    """
    layers = (
        LayerSpec("conv2d", "conv1", {"channels": 32, "kernel": 3}),
        LayerSpec("maxpool2d", "pool1", {"size": 2}),
        LayerSpec("relu", "block1"),
        LayerSpec("conv2d", "conv2", {"channels": 64, "kernel": 3}),
        LayerSpec("maxpool2d", "pool2", {"size": 2}),
        LayerSpec("relu", "block2"),
        LayerSpec("conv2d", "conv3", {"channels": 64, "kernel": 3}),
        LayerSpec("relu", "block3"),
        LayerSpec("flatten", "flatten"),
        *_hidden((64,)),
        _output(n_classes),
    )
    return NetworkSpec("cnn", replace(image, height_px=28, width_px=28), layers)


def _best(image: InputSpec, n_classes: int) -> NetworkSpec:
    """Four convolutions with batch norm: the best on digits within four minutes on two cores.

    The first map is pooled at once, so that the wide layers work on a quarter of the positions. With a 5 x 5 kernel
    in the first layer every pooling divides its map without remainder, and no edge is lost.
    """
    layers: list[LayerSpec] = []
    for number, (channels, kernel, padding, pooled) in enumerate(_BEST, start=1):
        options = {"channels": channels, "kernel": kernel, "padding": padding}
        layers.append(LayerSpec("conv2d", f"conv{number}", options))
        layers += [LayerSpec("maxpool2d", f"pool{number}", {"size": 2})] * pooled
        layers += [LayerSpec("batchnorm2d", f"norm{number}"), LayerSpec("relu", f"block{number}")]
    layers += [
        LayerSpec("flatten", "flatten"),
        LayerSpec("dropout", "dropout", {"rate": 0.25}),
        _output(n_classes),
    ]
    return NetworkSpec("best", replace(image, height_px=28, width_px=28), tuple(layers))


_BEST = (
    (32, 5, "valid", True),
    (64, 3, "valid", False),
    (64, 3, "valid", True),
    (128, 3, "same", False),
)
"""Channels, kernel, padding, and whether a pooling follows."""

ARCHITECTURES: dict[str, Callable[[InputSpec, int], NetworkSpec]] = {
    "best": _best,
    "cnn": _cnn,
    "mlp": _mlp,
    "mlp-wide": _mlp_wide,
}


_PLAIN = TrainSettings()
_TRAINING: dict[str, tuple[TrainSettings, str | None]] = {
    "best": (
        TrainSettings(
            epochs=15,
            learning_rate=4e-3,
            optimizer="muon",
            weight_decay=0.01,
            schedule="one-cycle",
            label_smoothing=0.05,
        ),
        "handwriting,elastic=0.03,shift=0.1",
    ),
}


def training_for(name: str) -> tuple[TrainSettings, str | None]:
    """The default settings and augmentation (as `parse_augmentation` takes it, or None) of a named network."""
    return _TRAINING.get(name, (_PLAIN, None))


def architecture(name: str, image: InputSpec, n_classes: int) -> NetworkSpec:
    """The spec of a named network for images of a given size.

    Parameters
    ----------
    name : {'best', 'cnn', 'mlp', 'mlp-wide'}
        ``best``: four convolutions (32, 64, 64, 128) with batch norm, for the engine torch.
        ``cnn``: three (32, 64, 64) and a dense layer of 64. Both take 28 x 28 px. ``mlp``: dense
        128 - 64. ``mlp-wide``: dense 512 - 128 with dropout 0.25.
    image : InputSpec
        Size, channels and scaling of the images.
    n_classes : int
        Units of the last layer, at least 2.

    Returns
    -------
    NetworkSpec
        A record: cheap to make, compare and store.

    Raises
    ------
    SettingError
        If the name is unknown or there are fewer than 2 classes.

    Examples
    --------
    >>> architecture("cnn", InputSpec(28, 28, 1), 10).layer_names[:3]
    ('conv1', 'pool1', 'block1')
    """
    if name not in ARCHITECTURES:
        raise SettingError(
            f"network is {name!r}, expected one of {', '.join(ARCHITECTURES)}; {nearest(name, ARCHITECTURES)}"
        )
    if n_classes < 2:
        raise SettingError(f"n_classes is {n_classes}, expected at least 2; add images of another class")
    return ARCHITECTURES[name](image, n_classes)


def with_classes(spec: NetworkSpec, n_classes: int) -> NetworkSpec:
    """The same network with another number of classes; one that ends in features gets an output layer."""
    last = spec.layers[-1]
    if last.kind != "dense":
        return replace(spec, layers=(*spec.layers, _output(n_classes)))
    return replace(
        spec, layers=(*spec.layers[:-1], replace(last, options={**last.options, "units": n_classes}))
    )


def check_freezable(spec: NetworkSpec, through: str) -> None:
    """Raise UnknownLayerError for an unknown layer, SettingError if freezing it would leave nothing to train."""
    if through not in spec.layer_names:
        raise UnknownLayerError(
            f"layer {through!r} is unknown, expected one of network {spec.name!r}, "
            f"{nearest(through, spec.layer_names)}"
        )
    if through == spec.layer_names[-1]:
        raise SettingError(f"layer {through!r} is the last one, expected one before it; freeze fewer layers")


def layer_shapes(spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Output shape of every layer in order, (channels, height, width) or (features,).

    SettingError if the image is too small for the layers.
    """
    height, width, channels = spec.input.shape
    shape: tuple[int, ...] = (channels, height, width)
    shapes = {}
    for layer in spec.layers:
        shape = _after(layer, shape)
        if min(shape) < 1:
            raise SettingError(
                f"image of {height} x {width} px is too small for network {spec.name!r}, expected a larger "
                f"one; nothing is left of it after layer {layer.name!r}"
            )
        shapes[layer.name] = shape
    return shapes


def _after(layer: LayerSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The output shape of a layer for an input shape."""
    options = layer.options
    if layer.kind == "conv2d":
        trim = 0 if options.get("padding", "valid") == "same" else options["kernel"] - 1
        return (options["channels"], shape[1] - trim, shape[2] - trim)
    if layer.kind == "maxpool2d":
        return (shape[0], shape[1] // options["size"], shape[2] // options["size"])
    if layer.kind == "flatten":
        return (prod(shape),)
    if layer.kind == "dense":
        return (options["units"],)
    return shape
