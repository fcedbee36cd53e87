from itertools import chain

import numpy as np
import pytest

from medtl.data.batches import EpochBatches
from medtl.data.seeds import Stream, generator, torch_seed


def indices(batches):
    return [[index for _, index in batch] for batch in batches]


def test_every_case_once_and_parts_differ_by_at_most_one():
    batches = indices(EpochBatches(33, 8, seed=0))
    sizes = [len(batch) for batch in batches]
    assert sorted(chain(*batches)) == list(range(33))
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) > 1  # 33 = 4 * 8 + 1 would leave one case alone


def test_the_order_depends_on_seed_and_epoch_alone():
    first = EpochBatches(20, 4, seed=3)
    assert indices(first) == indices(EpochBatches(20, 4, seed=3))
    later = EpochBatches(20, 4, seed=3)
    later.epoch = 1
    assert indices(first) != indices(later)
    assert indices(first) != indices(EpochBatches(20, 4, seed=4))


def test_without_a_seed_the_order_is_that_of_the_split():
    assert list(chain(*indices(EpochBatches(7, 3, seed=None)))) == list(range(7))


def test_processes_share_every_batch():
    parts = [indices(EpochBatches(16, 8, seed=1, rank=r, processes=2)) for r in (0, 1)]
    whole = indices(EpochBatches(16, 8, seed=1))
    for left, right, both in zip(*parts, whole, strict=True):
        assert sorted(left + right) == sorted(both)


def test_streams_never_share_numbers():
    draws = {
        (stream, epoch): generator(0, stream, epoch).integers(2**62)
        for stream in Stream
        for epoch in range(5)
    }
    assert len(set(draws.values())) == len(draws)
    assert torch_seed(0, Stream.DROPOUT, 1) == torch_seed(0, Stream.DROPOUT, 1)
    assert 0 <= torch_seed(0, Stream.INIT) < 2**63


@pytest.mark.parametrize("n", [1, 2, 7])
def test_small_splits(n):
    assert sum(len(batch) for batch in EpochBatches(n, 32, seed=0)) == n
    assert np.all([len(batch) for batch in EpochBatches(n, 32, seed=0)])
