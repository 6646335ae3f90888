import pytest
import torch

from psld.networks import MLP


def test_untrained_output_is_zero_of_the_right_shape():
    assert torch.equal(MLP(2, 3, out_variables=1)(torch.randn(5, 2, 3), torch.rand(5)), torch.zeros(5, 1, 3))


def test_learns_a_function_of_state_and_time():
    """The score of N(0, t²): −z / t², scaled by t."""
    torch.manual_seed(0)
    network = MLP(1, 1, width=32, depth=2)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    error = torch.inf * torch.ones(())
    for _ in range(300):
        t = 0.2 + 0.8 * torch.rand(256)
        z = t[:, None, None] * torch.randn(256, 1, 1)
        error = (network(z, t) + z / t[:, None, None]).square().mean()
        error.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(error.detach()) < 0.02  # zero would leave 1


def test_refusals():
    network = MLP(2, 3)
    with pytest.raises(ValueError, match=r"takes \(B, 2, 3\): got \(5, 6\)"):
        network(torch.zeros(5, 6), torch.ones(5))
    with pytest.raises(ValueError, match=r"shape \(5,\): got \(1,\)"):
        network(torch.zeros(5, 2, 3), torch.ones(1))
    with pytest.raises(ValueError, match="depth must be at least 1: got 0"):
        MLP(2, 3, depth=0)
