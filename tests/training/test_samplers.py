"""The examples of each batch."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from modeling_clir.data.sections import ExampleKey
from modeling_clir.training.samplers import TaskBatchSampler, TokenBudgetSampler


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
    """Collects the examples of each optimizer step, over processes and accumulated batches."""
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


# Tokens of examples: short and long examples, some of a rare length.
LENGTHS = {
    ("qlm", "en-de"): np.random.default_rng(0).integers(20, 400, 301),
    ("qlm", "fr-es"): np.array([9, 10, 11, 400]),
    ("rr", "en-de"): np.random.default_rng(1).integers(200, 500, 83),
    ("rr", "de-fr"): np.array([30]),
}


def budgeted(max_tokens, processes=1, index=0, accumulation=1, epoch=0, lengths=LENGTHS) -> list[list[ExampleKey]]:
    sampler = TokenBudgetSampler(lengths, max_tokens, processes, index, accumulation, seed=3)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler) and batches == list(sampler)
    return batches


@pytest.mark.parametrize("max_tokens", [500, 2000, 10000])
@pytest.mark.parametrize(("processes", "accumulation"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_budget(max_tokens, processes, accumulation):
    """Each example occurs once. A step has one task and pair, and about as many tokens as the budget allows."""
    epochs = [
        [budgeted(max_tokens, processes, index, accumulation, epoch) for index in range(processes)]
        for epoch in range(3)
    ]
    assert len({len(batches) for epoch in epochs for batches in epoch}) == 1
    for ranks in epochs:
        of_ranks = zip(*(steps_from(batches, accumulation) for batches in ranks))
        steps = [sum(parts, []) for parts in of_ranks]  # noqa: RUF017
        seen, used = Counter(), Counter()
        for step in steps:
            assert len({(key.task, key.pair) for batch in step for key in batch}) == 1
            assert len(step) == processes * accumulation and all(step)
            name = step[0][0][:2]
            tokens = [sum(LENGTHS[name][key.index] for key in batch) for batch in step]
            longest = max(LENGTHS[name][key.index] for batch in step for key in batch)
            assert sum(tokens) <= max_tokens * len(step) or len(step) >= sum(map(len, step))
            assert max(tokens) < max_tokens + longest and (len(step) > 1 or max(tokens) <= max_tokens)
            assert max(map(len, step)) - min(map(len, step)) <= 1
            seen.update(key[:3] for batch in step for key in batch)
            used[name] += 1
        assert set(seen) == {(*name, i) for name, lengths in LENGTHS.items() for i in range(len(lengths))}
        for name, number in used.items():
            parts, repeated = processes * accumulation, [n for key, n in seen.items() if key[:2] == name and n > 1]
            assert len(repeated) < parts and sum(repeated) <= parts  # of a last step with fewer examples than batches
            most = max_tokens * parts - LENGTHS[name].max()  # of a step that is full
            assert number <= 1 + 1.1 * LENGTHS[name].sum() / most
    assert epochs[0] != epochs[1] != epochs[2]


def steps_from(batches: list, accumulation: int) -> list[list]:
    return [batches[i : i + accumulation] for i in range(0, len(batches), accumulation)]


def test_budget_splits_the_same_step():
    def steps(max_tokens, processes, accumulation):
        ranks = [
            steps_from(budgeted(max_tokens, processes, index, accumulation), accumulation)
            for index in range(processes)
        ]
        return [{key for batches in step for batch in batches for key in batch} for step in zip(*ranks)]

    expected = steps(3000, 1, 1)
    for split in ((1500, 2, 1), (1500, 1, 2), (750, 2, 2), (500, 3, 2)):
        assert steps(*split) == expected


def test_budget_takes_similar_lengths_together_and_mixes_them_over_the_epoch():
    lengths = {("qlm", "en-de"): np.random.default_rng(0).integers(20, 400, 20000)}
    epochs = [budgeted(4000, epoch=epoch, lengths=lengths) for epoch in (0, 1)]
    for batches in epochs:
        tokens = [np.array([lengths[key[:2]][key.index] for key in batch]) for batch in batches]
        assert np.mean([some.max() / some.min() for some in tokens]) < 1.15
        assert np.mean([some.sum() for some in tokens]) > 0.92 * 4000
        means = np.array([some.mean() for some in tokens])
        assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.1
        assert abs(np.corrcoef(means[1:], means[:-1])[0, 1]) < 0.1
    companions = [
        {frozenset(pair) for batch in batches for pair in pairwise(key.index for key in batch)} for batches in epochs
    ]
    assert len(companions[0] & companions[1]) < 0.02 * len(companions[0])


def test_budget_of_less_than_an_example():
    with pytest.raises(
        ValueError, match=r"max_tokens_per_batch \(399\) is less than the longest qlm example of fr-es"
    ):
        TokenBudgetSampler({("qlm", "fr-es"): np.array([9, 400])}, 399)
