"""Norm, SiLU and dropout against their definition."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from psld.networks.normalisation import NormSiLU


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


def test_in_eval_mode_torch_func_works():
    module, x = pair(8).eval(), torch.randn(2, 8, 3, 3, dtype=torch.float64)
    slope = torch.func.jvp(module, (x,), (torch.ones_like(x),))[1]
    h = 1e-6
    torch.testing.assert_close(slope, (module(x + h) - module(x - h)) / (2 * h), rtol=1e-6, atol=1e-7)
