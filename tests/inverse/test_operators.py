"""Adjoints and solutions against the matrices of the operators, written out column by column."""

import pytest
import torch

from psld.inverse.operators import Blur, GaussianBlur, Grayscale, Mask, SuperResolution

SHAPE = (3, 6, 8)
KNOWN = torch.rand(SHAPE, generator=torch.Generator().manual_seed(5)) < 0.4
KERNEL = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
OPERATORS = [
    Mask(KNOWN),
    SuperResolution(2),
    Grayscale(),
    GaussianBlur(0.7, size=5),
    Blur.uniform(3),
    Blur(KERNEL),
]

every_operator = pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: type(operator).__name__)


def draws(n, shape, seed):
    return torch.randn(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def matrix(operator):
    basis = torch.eye(KNOWN.numel(), dtype=torch.float64).unflatten(1, SHAPE)
    return operator.forward(basis).flatten(1).T


@every_operator
def test_adjoint(operator):
    x = draws(4, SHAPE, 0)
    measured = operator.forward(x)
    y = draws(4, measured.shape[1:], 1)
    left, right = (measured * y).flatten(1).sum(1), (x * operator.adjoint(y)).flatten(1).sum(1)
    torch.testing.assert_close(left, right, rtol=0, atol=1e-12)


@every_operator
def test_solve_against_the_matrix(operator):
    a, b = torch.tensor([[0.7, 2.0], [0.1, 0.01]], dtype=torch.float64)
    v = draws(2, operator.forward(draws(1, SHAPE, 0)).shape[1:], 2)
    dense = matrix(operator)
    gram = dense @ dense.T
    expected = torch.stack(
        [
            torch.linalg.solve(ai * gram + bi * torch.eye(len(gram), dtype=torch.float64), vi.flatten())
            for ai, bi, vi in zip(a, b, v, strict=True)
        ]
    )
    torch.testing.assert_close(operator.solve(v, a, b).flatten(1), expected, rtol=1e-9, atol=1e-9)
    one = operator.solve(v[:1], torch.tensor(0.5), torch.tensor(0.0)).flatten(1)
    torch.testing.assert_close(one, v[:1].flatten(1) @ torch.linalg.pinv(0.5 * gram, rtol=1e-12), rtol=1e-8, atol=1e-8)


def test_what_they_measure():
    x = draws(2, SHAPE, 3)
    assert torch.equal(Mask(KNOWN).forward(x), torch.stack([image[KNOWN] for image in x]))
    averages = torch.nn.functional.avg_pool2d(x, 2)
    torch.testing.assert_close(SuperResolution(2).forward(x), averages, rtol=0, atol=1e-14)
    wrapped = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="circular")
    smooth = torch.nn.functional.avg_pool2d(wrapped, 3, stride=1)
    torch.testing.assert_close(Blur.uniform(3).forward(x), smooth, rtol=0, atol=1e-14)
    grey = torch.full((1, 3, 2, 2), 0.3, dtype=torch.float64)
    torch.testing.assert_close(Grayscale().forward(grey), grey[:, :1], rtol=0, atol=1e-15)
    assert float(GaussianBlur(1.3).kernel.sum()) == pytest.approx(1.0, abs=1e-14)


def test_operators_are_their_arguments():
    """Equal where they measure the same, large masks by their content, and shown as they are written."""
    assert repr(SuperResolution()) == "SuperResolution(factor=2)" and repr(Mask(KNOWN[:1, :1, :2])) == (
        f"Mask({KNOWN[:1, :1, :2].tolist()})"
    )
    large = torch.zeros(3, 28, 28, dtype=torch.bool)
    large[:, 5] = True
    other = large.clone()
    other[0, 0, 0] = True
    assert repr(Mask(large)) == "Mask(<tensor (3, 28, 28)>)"
    assert Mask(large) == Mask(large.clone()) != Mask(other)
    assert Blur.uniform(3) == Blur(torch.full((3, 3), 1 / 9, dtype=torch.float64)) != GaussianBlur(0.7, size=3)
    assert Grayscale() == Grayscale([0.299, 0.587, 0.114]) != Grayscale((1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: Mask(torch.zeros(2, 2, dtype=torch.bool)), "knows no pixel"),
        (lambda: Mask(torch.ones(2, 2, dtype=torch.bool)), "knows every pixel"),
        (lambda: Mask(torch.ones(2, 2)), "True where a value is known"),
        (lambda: Mask(KNOWN).forward(torch.zeros(1, 3, 8, 8)), "the mask has size 3×6×8 and the images 3×8×8"),
        (lambda: SuperResolution(1), "at least 2"),
        (lambda: SuperResolution(4).forward(torch.zeros(1, 1, 6, 8)), "6×8 are not made of 4×4 blocks"),
        (lambda: Grayscale().forward(torch.zeros(1, 1, 8, 8)), "colour images"),
        (lambda: Grayscale((0.5, 0.5)), "weights must be three"),
        (lambda: Blur.uniform(9).forward(torch.zeros(1, 1, 8, 8)), "does not fit"),
        (lambda: GaussianBlur(0.0), "std must be positive"),
    ],
)
def test_refusals(build, message):
    with pytest.raises(ValueError, match=message):
        build()
