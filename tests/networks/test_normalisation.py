"""The lean norm–SiLU–dropout against PyTorch's own operations."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from psld.networks import normalisation
from psld.networks.normalisation import NormSiLU, keep_mask


@pytest.fixture(autouse=True)
def lean(monkeypatch):
    """The lean form for the small inputs of these tests too."""
    monkeypatch.setattr(normalisation, "LEAN_FROM", 0)


def pair(channels, dtype=torch.float64):
    torch.manual_seed(0)
    module = NormSiLU(channels).to(dtype)
    nn.init.normal_(module.weight)
    nn.init.normal_(module.bias)
    return module


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_value_and_gradients(layout):
    module, results = pair(12), []
    x = torch.randn(3, 12, 4, 5, dtype=torch.float64).contiguous(memory_format=layout)
    direction = torch.randn(3, 12, 4, 5, dtype=torch.float64)
    for training in (True, False):
        module.train(training).zero_grad()
        leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
        y = module(leaf)
        (y * direction).sum().backward()
        results.append((y, leaf.grad, module.weight.grad, module.bias.grad))
    plain = functional.silu(functional.group_norm(x, 3, module.weight, module.bias, 1e-6))
    torch.testing.assert_close(results[0][0], plain)
    for lean, own in zip(*results, strict=True):
        torch.testing.assert_close(lean, own, rtol=1e-12, atol=1e-12)


def test_dropout_zeroes_its_share_and_keeps_the_mean_in_value_and_gradient():
    module = NormSiLU(4, dropout=0.3)
    x = torch.randn(8, 4, 64, 64, requires_grad=True)
    torch.manual_seed(0)
    y = module(x)
    kept = y != 0
    assert float(kept.double().mean()) == pytest.approx(0.7, abs=0.005)
    whole = module.eval()(x)
    torch.testing.assert_close(y[kept], whole[kept] / 0.7)
    y.sum().backward()
    torch.testing.assert_close(module.bias.grad, _bias_gradient(x, kept), rtol=1e-3, atol=1e-1)


def _bias_gradient(x, kept):
    bias = torch.zeros(4, requires_grad=True)
    (functional.silu(functional.group_norm(x, 1, torch.ones(4), bias, 1e-6)) * kept / 0.7).sum().backward()
    return bias.grad


@pytest.mark.parametrize("dropout", [0.1, 0.15, 0.5])
def test_the_mask_is_fair_and_repeats_with_the_seed(dropout):
    x = torch.empty(999, 1001)
    torch.manual_seed(1)
    mask = keep_mask(x, dropout)
    assert float(mask.double().mean()) == pytest.approx(1 - dropout, abs=2e-3)
    for place in range(4):  # every 16 bits of the 64
        assert float(mask.flatten()[place::4].double().mean()) == pytest.approx(1 - dropout, abs=4e-3)
    torch.manual_seed(1)
    assert torch.equal(mask, keep_mask(x, dropout))


def test_it_keeps_less_than_plain_operations():
    kept = []

    def count(tensor):
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    module, x = NormSiLU(32, dropout=0.1), torch.randn(4, 32, 16, 16, requires_grad=True)
    size = x.numel() * 4
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        module(x)
    assert sum(kept) < 1.3 * size  # x, and a byte a pixel; plain: x, its norm, its SiLU's mask as numbers


def test_in_eval_mode_torch_func_works():
    module, x = pair(8).eval(), torch.randn(2, 8, 3, 3, dtype=torch.float64)
    slope = torch.func.jvp(module, (x,), (torch.ones_like(x),))[1]
    h = 1e-6
    torch.testing.assert_close(slope, (module(x + h) - module(x - h)) / (2 * h), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_second_derivatives_in_training(dropout):
    """Against finite differences of the first ones, with the same mask every time."""
    module = pair(4)
    module.dropout = dropout

    def forward(x, weight, bias):
        torch.manual_seed(3)
        return torch.func.functional_call(module, {"weight": weight, "bias": bias}, (x,))

    x = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(forward, (x, module.weight, module.bias))


def test_a_penalty_on_gradients_trains_as_with_plain_operations():
    module, x = pair(8), torch.randn(2, 8, 3, 3, dtype=torch.float64, requires_grad=True)
    results = []
    for training in (True, False):
        module.train(training).zero_grad()
        (slope,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
        slope.square().sum().backward()
        results.append((slope, module.weight.grad, module.bias.grad))
    for lean, own in zip(*results, strict=True):
        torch.testing.assert_close(lean, own, rtol=1e-10, atol=1e-10)


def test_only_the_gradients_that_are_asked_for():
    module, x = pair(8).requires_grad_(False), torch.randn(2, 8, 3, 3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert x.grad is not None and module.weight.grad is None


def test_small_inputs_take_the_plain_way(monkeypatch):
    monkeypatch.setattr(normalisation, "LEAN_FROM", 2 * 8 * 3 * 3 + 1)
    y = pair(8)(torch.randn(2, 8, 3, 3, dtype=torch.float64, requires_grad=True))
    assert type(y.grad_fn).__name__ == "SiluBackward0"
    monkeypatch.setattr(normalisation, "LEAN_FROM", 2 * 8 * 3 * 3)
    assert "Lean" in type(pair(8)(y.detach().requires_grad_()).grad_fn).__name__
