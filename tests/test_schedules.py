import math

import mpmath
import pytest
import torch
from scipy.integrate import quad

from psld.schedules import Constant, Cosine, Geometric, Linear, as_schedule

SCHEDULES = [
    Constant(),
    Constant(0.3),
    Linear(),
    Linear(8.0, 8.0),
    Linear(20.0, 0.1),
    Cosine(),
    Cosine(total=4.0, offset=0.05),
    Geometric(),
    Geometric(0.1, 2.0),
]


def number(t: float) -> torch.Tensor:
    return torch.tensor(t, dtype=torch.float64)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize(("s", "t"), [(0.0, 1.0), (0.0, 0.01), (0.3, 0.31), (0.25, 0.75), (0.9, 1.0)])
def test_increment_is_the_integral_of_the_rate(schedule, s, t):
    want, _ = quad(lambda u: float(schedule(number(u))), s, t, epsabs=0.0, epsrel=1e-13, limit=500)
    assert float(schedule.increment(number(s), number(t))) == pytest.approx(want, rel=1e-12)


def exact_integral(schedule, s: float, t: float):
    """∫ₛᵗβ with 60 digits, from the definitions in the papers."""
    s, t = mpmath.mpf(s), mpmath.mpf(t)
    if isinstance(schedule, Constant):
        return schedule.beta * (t - s)
    if isinstance(schedule, Linear):
        low, high = mpmath.mpf(schedule.beta_min), mpmath.mpf(schedule.beta_max)
        return low * (t - s) + (high - low) * (t**2 - s**2) / 2
    if isinstance(schedule, Geometric):
        low, high = mpmath.mpf(schedule.sigma_min), mpmath.mpf(schedule.sigma_max)
        return (low * (high / low) ** t) ** 2 - (low * (high / low) ** s) ** 2
    start = mpmath.pi / 2 * schedule.offset / (1 + mpmath.mpf(schedule.offset))
    stop = mpmath.acos(mpmath.cos(start) * mpmath.exp(-mpmath.mpf(schedule.total) / 2))
    return 2 * mpmath.log(mpmath.cos(start + s * (stop - start)) / mpmath.cos(start + t * (stop - start)))


@pytest.mark.parametrize("schedule", [*SCHEDULES, Cosine(total=40.0), Cosine(total=100.0)], ids=repr)
@pytest.mark.parametrize(("s", "width"), [(0.3, 1e-12), (0.0, 1e-12), (0.999, 1e-12), (0.5, 1e-6), (0.0, 1.0)])
def test_increment_does_not_cancel(schedule, s, width):
    t = s + width
    with mpmath.workdps(60):
        want = float(exact_integral(schedule, s, t))
    assert float(schedule.increment(number(s), number(t))) == pytest.approx(want, rel=3e-14)


@pytest.mark.parametrize("total", [1.0, 10.0, 40.0, 100.0])
def test_cosine_falls_like_the_published_cosine_and_stops_at_its_total(total):
    """ᾱ(t) = cos²((t + s)/(1 + s) π/2) / cos²(s/(1 + s) π/2) of Nichol & Dhariwal, run to where it is e^(−total)."""
    schedule = Cosine(total)
    assert float(schedule.increment(number(0.0), number(1.0))) == pytest.approx(total, rel=1e-14)
    start = 0.008 / 1.008 * math.pi / 2
    end = math.acos(math.cos(start) * math.exp(-total / 2))
    published = (math.cos(start + 0.4 * (end - start)) / math.cos(start)) ** 2
    assert float(torch.exp(-schedule.increment(number(0.0), number(0.4)))) == pytest.approx(published, rel=1e-12)


def test_geometric_is_the_rate_of_the_variance():
    """dσ²/dt by a central difference of σ² = (0.01 · 5000ᵗ)²."""
    variance = [(0.01 * 5000.0**t) ** 2 for t in (0.6 - 1e-5, 0.6 + 1e-5)]
    assert float(Geometric()(number(0.6))) == pytest.approx((variance[1] - variance[0]) / 2e-5, rel=1e-7)


def test_shapes_are_those_of_the_times():
    t = torch.linspace(0.1, 1.0, 6, dtype=torch.float64).reshape(2, 3)
    for schedule in SCHEDULES:
        one_by_one = [[float(schedule(u)) for u in row] for row in t]
        torch.testing.assert_close(schedule(t), number(0.0) + torch.tensor(one_by_one, dtype=torch.float64))
        assert schedule.increment(torch.zeros_like(t), t).shape == t.shape


def test_a_number_is_a_constant_rate():
    linear = Linear()
    assert as_schedule(linear) is linear
    constant = as_schedule(8)
    assert repr(constant) == "Constant(beta=8)" and float(constant.increment(number(0.25), number(0.5))) == 2.0


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, "8"])
def test_rates_are_positive_and_finite(value):
    for build in (Constant, lambda v: Linear(v, 1.0), lambda v: Linear(1.0, v), Cosine, lambda v: Cosine(10.0, v)):
        with pytest.raises(ValueError, match=f"must be a (positive, finite )?number.*: got {value!r}"):
            build(value)


def test_geometric_grows():
    with pytest.raises(ValueError, match="sigma_max = 0.01 must be larger than sigma_min = 0.01"):
        Geometric(0.01, 0.01)
    with pytest.raises(ValueError, match="sigma_min must be a positive, finite number: got 0.0"):
        Geometric(0.0, 1.0)
