"""Bounds on what a configuration asks for leave nothing behind when they refuse."""

import pytest
import torch

from psld.specs.bounds import OutsizedError, bounded


@pytest.mark.parametrize("calls", range(1, 8))
def test_a_refusal_at_any_call_leaves_gradients_on(calls):
    """The call that is refused may be the one by which torch.no_grad() is left."""
    with pytest.raises(OutsizedError), bounded(10**6, calls, "too much"):
        for _ in range(10):
            with torch.no_grad():
                torch.zeros(3).add_(1.0)
    assert torch.is_grad_enabled()
    weight = torch.ones(2, requires_grad=True)
    weight.square().sum().backward()
    assert torch.equal(weight.grad if weight.grad is not None else torch.zeros(2), torch.full((2,), 2.0))
