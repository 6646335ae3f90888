from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader

from psld.data import Digits, ShuffledBatches, derived_seed


def test_every_epoch_is_a_permutation_and_they_differ():
    stream = [index for batch in ShuffledBatches(10, 4, seed=3, start_step=0, steps=10) for index in batch]
    epochs = [stream[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 4


@pytest.mark.parametrize("step", [0, 1, 7, 99])
def test_continues_in_mid_epoch(step):
    whole = list(ShuffledBatches(50, 8, seed=0, start_step=0, steps=100))
    assert list(ShuffledBatches(50, 8, seed=0, start_step=step, steps=100)) == whole[step:]


def test_seeds_give_different_orders_and_none_touches_the_global_state():
    before = torch.get_rng_state()
    first, second = (ShuffledBatches(100, 100, seed, 0, 1).batch(0) for seed in (0, 1))
    assert first != second
    assert torch.equal(torch.get_rng_state(), before)


def test_ranks_share_the_batch():
    whole = ShuffledBatches(30, 6, 5, 0, 9)
    parts = [ShuffledBatches(30, 6, 5, 0, 9, rank, 3) for rank in range(3)]
    for step in range(9):
        assert Counter(whole.batch(step)) == sum((Counter(part.batch(step)) for part in parts), Counter())


def test_batches_may_exceed_the_data():
    assert Counter(ShuffledBatches(3, 9, 0, 0, 1).batch(0)) == {0: 3, 1: 3, 2: 3}


def test_serves_a_loader():
    data = Digits("heldout")
    batches = ShuffledBatches(len(data), 4, 0, 2, 5)
    loaded = list(DataLoader(data, batch_sampler=batches))
    assert len(loaded) == len(batches) == 3
    assert torch.equal(loaded[0], torch.stack([data[index] for index in batches.batch(2)]))


def test_derived_seeds_are_stable_and_distinct():
    assert derived_seed(0, "noise", 1) == derived_seed(0, "noise", 1)
    seeds = {derived_seed(seed, name, step) for seed in range(10) for name in ("a", "b") for step in range(100)}
    assert len(seeds) == 2000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_refusals():
    with pytest.raises(ValueError, match="10 does not divide among 4"):
        ShuffledBatches(10, 10, 0, 0, 1, 0, 4)
    with pytest.raises(ValueError, match="got rank 2, world 2"):
        ShuffledBatches(10, 10, 0, 0, 1, 2, 2)
    with pytest.raises(ValueError, match="length must be at least 1: got 0"):
        ShuffledBatches(0, 4, 0, 0, 1)
