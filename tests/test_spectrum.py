"""The mean and the components of data: against an eigendecomposition, and as a file."""

import math

import pytest
import safetensors.torch
import torch

from psld.data import Digits
from psld.files import UnreadableFileError
from psld.spectrum import SPECTRUM, Spectrum


@pytest.fixture(scope="module")
def digits():
    return Digits("train")


def gaussian(n=2000, seed=0):
    """Draws of a known Gaussian in six dimensions."""
    generator = torch.Generator().manual_seed(seed)
    deviations = torch.tensor([3.0, 2.0, 1.0, 0.3, 0.3, 0.3])
    return 0.5 + torch.randn(n, 6, generator=generator) * deviations


def test_components_are_those_of_the_covariance(digits):
    spectrum = Spectrum.measure(digits, rank=10)
    flat = digits.images.flatten(1).double()
    values, vectors = torch.linalg.eigh(torch.cov(flat.T, correction=0))
    torch.testing.assert_close(spectrum.mean.flatten().double(), flat.mean(0), atol=1e-6, rtol=0)
    torch.testing.assert_close(spectrum.variances, values.flip(0)[:10], rtol=1e-4, atol=0)
    along = (spectrum.components.flatten(1).double() @ vectors.flip(1)[:, :10]).abs()
    torch.testing.assert_close(along, torch.eye(10, dtype=torch.float64), atol=2e-2, rtol=0)
    assert spectrum.remainder == pytest.approx(float(values[:-10].mean()), rel=1e-3)
    assert spectrum.pixel_scale == pytest.approx(math.sqrt(float(values.mean())), rel=1e-5)


def test_it_is_measured_the_same_twice(digits):
    assert Spectrum.measure(digits) == Spectrum.measure(digits)
    assert Spectrum.measure(digits) != Spectrum.measure(digits, rank=5)


def test_noisy_has_the_law_of_data_and_noise():
    """Mean m and covariance C + σ², propagated through the map's own matrix: no sampling."""
    spectrum = Spectrum.measure(gaussian(), rank=3)
    basis = torch.cat([torch.zeros(1, 6), torch.eye(6)]).double()
    y = spectrum.noisy(basis, sigma=0.7)
    matrix = (y[1:] - y[0]).T
    u = spectrum.components.double()
    covariance = spectrum.remainder * (torch.eye(6) - u.T @ u) + u.T @ spectrum.variances.diag() @ u
    torch.testing.assert_close(y[0], spectrum.mean.double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(matrix @ matrix.T, covariance + 0.49 * torch.eye(6), atol=1e-5, rtol=0)


def test_coordinates_are_about_the_mean():
    data = gaussian()
    spectrum = Spectrum.measure(data, rank=3)
    found = spectrum.coordinates(data)
    torch.testing.assert_close(found.mean(0), torch.zeros(3).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.square().mean(0), spectrum.variances, rtol=1e-4, atol=0)


def test_a_file_holds_all_of_it(tmp_path, digits):
    spectrum = Spectrum.measure(digits, rank=7)
    spectrum.save(tmp_path)
    assert Spectrum.load(tmp_path) == spectrum == Spectrum.load(tmp_path / SPECTRUM)


def test_another_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        Spectrum.load(tmp_path)
    (tmp_path / SPECTRUM).write_bytes(b"not safetensors")
    with pytest.raises(UnreadableFileError, match="is no spectrum"):
        Spectrum.load(tmp_path)
    (tmp_path / SPECTRUM).write_bytes(safetensors.torch.save({"mean": torch.zeros(3)}))
    with pytest.raises(UnreadableFileError, match="is no spectrum"):
        Spectrum.load(tmp_path)


def test_what_has_no_spectrum_is_refused():
    with pytest.raises(ValueError, match="at least two images"):
        Spectrum.measure(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="all images are the same"):
        Spectrum.measure(torch.ones(5, 4))
    with pytest.raises(ValueError, match="rank must be"):
        Spectrum.measure(gaussian(), rank=0)
    with pytest.raises(ValueError, match="must fit"):
        Spectrum(torch.zeros(3), torch.eye(3)[:2], torch.ones(3))
    with pytest.raises(ValueError, match="largest first"):
        Spectrum(torch.zeros(3), torch.eye(3), torch.tensor([1.0, 2.0, 3.0]))
