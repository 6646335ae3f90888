import math

import pytest
import torch

from psld.networks.embeddings import FourierEmbedding, FourierTime, PositionalTime, SinusoidalEmbedding


def test_sinusoidal_is_its_closed_form():
    t = [0.0, 1e-5, 0.3, 1.0]
    got = SinusoidalEmbedding(6, time_scale=7.0)(torch.tensor(t))
    frequencies = [1.0, 1e-2, 1e-4]  # 10000^(−j/2)
    want = [[f(7.0 * time * w) for f in (math.sin, math.cos) for w in frequencies] for time in t]
    torch.testing.assert_close(got, torch.tensor(want), rtol=1e-6, atol=1e-7)


def test_fourier_is_its_closed_form_and_travels_with_the_weights():
    embedding = FourierEmbedding(5)
    t = torch.tensor([1e-5, 0.2, 1.0])
    angles = 2 * math.pi * t.double().log()[:, None] * embedding.state_dict()["frequencies"].double()
    wanted = torch.cat([angles.sin(), angles.cos()], 1).float()
    torch.testing.assert_close(embedding(t), wanted, rtol=0, atol=3e-4)  # float32 angles of up to a few thousand
    torch.testing.assert_close(embedding(torch.ones(1))[0], torch.tensor([0.0] * 5 + [1.0] * 5))
    assert not list(embedding.parameters())


def test_fourier_frequencies_have_the_scale():
    torch.manual_seed(0)
    assert float(FourierEmbedding(60_000, scale=3.0).frequencies.std()) == pytest.approx(3.0, rel=0.01)


def test_refusals():
    with pytest.raises(ValueError, match="width must be even and at least 4: got 5"):
        SinusoidalEmbedding(5)
    for kind in (PositionalTime, FourierTime):
        with pytest.raises(ValueError, match="scale must be a positive, finite number: got 0"):
            kind(scale=0)


def test_choices_of_an_embedding_carry_their_scale():
    """sin(ω₀ c t) with ω₀ = 1; and the spread of many random frequencies."""
    assert float(PositionalTime(scale=7.0).of_width(6)(torch.tensor([0.2]))[0, 0]) == pytest.approx(math.sin(1.4))
    torch.manual_seed(0)
    assert float(FourierTime(scale=3.0).of_width(60_000).frequencies.std()) == pytest.approx(3.0, rel=0.01)
