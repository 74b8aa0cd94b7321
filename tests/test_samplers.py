"""Which examples make up a batch."""

from collections import Counter

import pytest

from modeling_clir.data.sections import ExampleKey
from modeling_clir.training.samplers import TaskBatchSampler


SIZES = {("qlm", "en-de"): 37, ("qlm", "fr-es"): 8, ("rr", "en-de"): 37, ("rr", "de-fr"): 1}


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize(("processes", "accumulation"), [(1, 1), (2, 1), (1, 2), (3, 2), (4, 4)])
def test_sampler(batch_size, processes, accumulation):
    samplers = [TaskBatchSampler(SIZES, batch_size, processes, i, accumulation, seed=3) for i in range(processes)]
    epochs = []
    for epoch in (0, 1):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        batches = [list(sampler) for sampler in samplers]
        assert batches == [list(sampler) for sampler in samplers]  # deterministic
        assert {len(b) for b in batches} == {len(sampler) for sampler in samplers}
        seen, before = Counter(), None
        for at, together in enumerate(zip(*batches)):
            kinds = {(key.task, key.pair) for batch in together for key in batch}
            assert len(kinds) == 1 and all(len(batch) == batch_size for batch in together)
            if at % accumulation:
                assert kinds == before  # one optimizer step, one task and pair
            before = kinds
            seen.update((key.task, key.pair, key.index) for batch in together for key in batch)
            assert all(key.epoch == epoch and key.query_side is None for batch in together for key in batch)
        assert set(seen) == {(*name, i) for name, size in SIZES.items() for i in range(size)}
        for name, size in SIZES.items():
            counts = [seen[(*name, i)] for i in range(size)]
            step = batch_size * processes * accumulation
            assert sum(counts) == -(-size // step) * step and max(counts) - min(counts) <= 1
        epochs.append(batches)
    assert epochs[0] != epochs[1]
    assert [key[:3] for batch in epochs[0][0] for key in batch] != [key[:3] for batch in epochs[1][0] for key in batch]


def steps_of(batch_size: int, processes: int, accumulation: int) -> list[list[ExampleKey]]:
    """The examples of each optimizer step, over processes and accumulated batches."""
    batches = [list(TaskBatchSampler(SIZES, batch_size, processes, i, accumulation)) for i in range(processes)]
    together = [[key for batch in row for key in batch] for row in zip(*batches)]
    return [sum(together[i : i + accumulation], []) for i in range(0, len(together), accumulation)]  # noqa: RUF017


def test_sampler_splits_the_same_step():
    expected = steps_of(8, 1, 1)
    for split in ((4, 2, 1), (4, 1, 2), (2, 2, 2), (1, 4, 2), (1, 8, 1), (1, 1, 8)):
        assert steps_of(*split) == expected


def test_sampler_rounds():
    """A round has a QLM step of each pair that is left, then an RR step of each."""
    sizes = {("qlm", "a-b"): 6, ("rr", "a-b"): 6, ("qlm", "a-c"): 4, ("rr", "a-c"): 4}
    sampler = TaskBatchSampler(sizes, 2)
    orders = set()
    for epoch in range(20):
        sampler.set_epoch(epoch)
        names = [(batch[0].task, batch[0].pair) for batch in sampler]
        assert [task for task, _ in names] == ["qlm", "qlm", "rr", "rr"] * 2 + ["qlm", "rr"]
        assert names[8:] == [("qlm", "a-b"), ("rr", "a-b")]
        assert all(set(names[i : i + 4]) == set(sizes) for i in (0, 4))
        orders.add(tuple(names))
    assert len(orders) > 5
