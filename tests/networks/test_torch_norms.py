"""A frozen norm as a line: the same answers, the same gradients, and no trace afterwards."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from headstart.networks.engines.torch_norms import fixed_norms  # noqa: E402


def network(norm: object) -> object:
    torch.manual_seed(0)
    one = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), norm, torch.nn.Conv2d(5, 2, 3))
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    norm.weight.data.uniform_(0.5, 2.0)
    norm.bias.data.normal_()
    return one


def kinds() -> list[object]:
    timm = pytest.importorskip("timm")
    from timm.layers import BatchNormAct2d

    assert timm
    return [torch.nn.BatchNorm2d(5, eps=1e-3), BatchNormAct2d(5, eps=1e-3)]


def gradients(one: object, pixels: object) -> list[object]:
    one.zero_grad()
    outputs = one(pixels)
    (outputs**2).sum().backward()
    return [outputs.detach(), *(value.grad.clone() for value in one[0].parameters())]


@pytest.mark.parametrize("kind", [0, 1])
def test_answers_and_gradients_are_those_of_torch(kind: int) -> None:
    one = network(kinds()[kind])
    one[1].eval().requires_grad_(False)
    pixels = torch.randn(4, 3, 9, 9).to(memory_format=torch.channels_last)
    expected = gradients(one, pixels)
    with fixed_norms(one):
        assert "forward" in vars(one[1])
        found = gradients(one, pixels)
    assert "forward" not in vars(one[1])
    for value, wanted in zip(found, expected, strict=True):
        assert torch.allclose(value, wanted, rtol=1e-4, atol=1e-5)
    one[1].running_mean.add_(1.0)
    assert not torch.allclose(gradients(one, pixels)[0], found[0]), "its numbers are read at every step"


def test_a_norm_that_learns_is_left_alone() -> None:
    for change in ("train", "requires_grad_"):
        one = network(torch.nn.BatchNorm2d(5))
        one[1].eval().requires_grad_(False)
        getattr(one[1], change)(True)
        with fixed_norms(one):
            assert "forward" not in vars(one[1])
