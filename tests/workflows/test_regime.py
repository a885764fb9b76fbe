"""Networks made wider and with dropout, and the regime that changes nothing."""

from __future__ import annotations

import pytest

from headstart.errors import SettingError
from headstart.networks.engines.registry import make_network
from headstart.networks.specs import architecture, layer_shapes
from headstart.records import InputSpec
from headstart.workflows.tune.regime import default_regime, widened, with_dropout

DIGIT = InputSpec(8, 8, 1)


def test_a_wider_network_has_more_of_everything_but_classes() -> None:
    spec = architecture("cnn", InputSpec(28, 28, 1), 10)
    wide = layer_shapes(widened(spec, 1.5))
    assert (wide["conv1"][0], wide["conv3"][0], wide["dense1"], wide["output"]) == (48, 96, (96,), (10,))
    assert widened(spec, 1.0) == spec and widened(spec, 1e-6).layers[0].options["channels"] == 1
    with pytest.raises(SettingError, match="width is 0"):
        widened(spec, 0)


def test_dropout_is_set_put_in_or_taken_out() -> None:
    plain, own = (architecture(name, DIGIT, 10) for name in ("mlp", "mlp-wide"))
    put = with_dropout(plain, 0.3)
    assert [layer.kind for layer in put.layers][-3:] == ["relu", "dropout", "dense"]
    assert put.layers[-2].options == {"rate": 0.3} and with_dropout(plain, 0) == plain
    rates = [layer.options["rate"] for layer in with_dropout(own, 0.3).layers if layer.kind == "dropout"]
    assert rates == [0.3, 0.3] and default_regime(own).dropout == 0.25
    assert not [layer for layer in with_dropout(own, 0).layers if layer.kind == "dropout"]
    make_network(with_dropout(plain, 0.3), "scratch")
    with pytest.raises(SettingError, match="dropout is 1"):
        with_dropout(plain, 1)
