"""Laws within a bin: that they are densities, that the bound is one, and that training tightens it."""

import math

import pytest
import torch

import laws
from psld import exact
from psld.likelihood.dequantisation import LogitNormal, Uniform, fit, on_levels
from psld.processes import PSLD, VPSDE

LEVELS = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0], dtype=torch.float64)


def crooked(levels=5):
    """A dequantiser with random weights, far from uniform and different at every pixel."""
    torch.manual_seed(0)
    dequantiser = LogitNormal(1, levels, hidden=8)
    for parameter in dequantiser.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return dequantiser.requires_grad_(False)


def log_bins(data_mean, data_std, x, width):
    normal = torch.distributions.Normal(data_mean, data_std)
    return (normal.cdf(x + width / 2) - normal.cdf(x - width / 2)).log()


@pytest.mark.parametrize("dequantiser", [Uniform(5), crooked()], ids=["uniform", "logit-normal"])
def test_weights_of_the_draws_average_to_the_probability(dequantiser):
    """E_q[ p(v) / q(v) ] is P of the bin, whatever q is: here of one-pixel images under a normal law."""
    x = LEVELS.repeat_interleave(20_000)[:, None, None, None]
    drawn = dequantiser(x, torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    assert ((drawn.x - x).abs() <= 0.25).all()
    log_p = -0.5 * ((drawn.x - 0.2) / 0.6).square() - math.log(0.6 * math.sqrt(2 * math.pi))
    weights = (log_p.flatten() - drawn.log_density).exp().reshape(5, -1)
    error = weights.mean(1) - log_bins(0.2, 0.6, LEVELS, 0.5).exp()
    assert (error.abs() < 4 * weights.std(1) / math.sqrt(20_000)).all()


def test_pixels_add_up():
    """Of an image, the log density is the sum over its pixels: those of the kernel's reach taken away, one by one."""
    x = LEVELS[torch.randint(5, (2, 3, 4, 4), generator=torch.Generator().manual_seed(0))]
    eps = torch.zeros_like(x)
    drawn = LogitNormal(3, 5)(x, eps)  # untrained: logits N(0, 1.6²), so that at ε = 0 u is ½ and q = 4 / (1.6 √(2π))
    torch.testing.assert_close(drawn.x, x)
    each = math.log(4.0 / (1.6 * math.sqrt(2 * math.pi))) - math.log(0.5)
    torch.testing.assert_close(drawn.log_density.detach(), torch.full((2,), 48 * each, dtype=torch.float64))
    torch.testing.assert_close(Uniform(5)(x, eps).log_density, torch.full((2,), -48 * math.log(0.5)).double())


@pytest.mark.parametrize("process", [VPSDE(), PSLD(0.01)], ids=repr)
def test_fitting_closes_most_of_the_gap(process):
    """Data as narrow as a bin: uniform noise loses half a nat a pixel, the learned law a fraction of that."""
    data, levels, n = exact.Gaussian(0.1, 0.15, (1, 4, 4)), 5, 2000
    generator = torch.Generator().manual_seed(0)

    def images(count):
        return (data.sample(count, generator) / 0.5).round().clamp(-2, 2) * 0.5

    learned = fit(LogitNormal(1, levels, hidden=16), data.model(process), images(2000), 1e-5, steps=300)
    x = images(n)
    eps = torch.randn(x.shape, dtype=torch.float64, generator=generator)

    def gap(dequantiser):
        drawn = dequantiser(x, eps)
        log_p = -0.5 * ((drawn.x - 0.1) / 0.15).square() - math.log(0.15 * math.sqrt(2 * math.pi))
        lower = log_p.flatten(1).sum(1) - drawn.log_density
        return float((log_bins(0.1, 0.15, x, 0.5).flatten(1).sum(1) - lower).mean()) / 16

    assert gap(Uniform(levels)) > 0.2
    assert 0.0 < gap(learned) < 0.08


def test_levels_are_recognised():
    pixels = torch.arange(256).float().reshape(1, 1, 16, 16)
    assert on_levels(pixels / 127.5 - 1, 256) and not on_levels(pixels / 127.5 - 1, 17)
    assert not on_levels(pixels / 127.5 - 0.5, 256) and not on_levels(pixels / 127.5 - 1.001, 256)
    assert on_levels(torch.arange(17).float() / 8 - 1, 17)
    for refused in (lambda: Uniform(1), lambda: LogitNormal(1, 0)):
        with pytest.raises(laws.REFUSALS, match="levels must be at least 2"):
            refused()
