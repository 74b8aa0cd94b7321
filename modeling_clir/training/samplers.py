"""Which examples make up a batch."""

import random
from collections.abc import Iterator

from ..data.sections import ExampleKey


class TaskBatchSampler:
    """
    Batches of one task and one language pair, the same task and pair in every process and in all batches that are
    accumulated into one optimizer step.

    An epoch is a sequence of rounds; in a round each language pair has one QLM step, in random order, and then each
    one RR step (Yu, Fei, Li 2021, released code), as long as it has examples left. The last step of a pair is filled
    up with its first examples.

    Args:
        sizes (`dict[tuple[str, str], int]`): number of examples of each (task, pair).
        batch_size (`int`): examples of a batch of this process.
        num_processes, process_index (`int`): of distributed training.
        accumulation_steps (`int`): batches of an optimizer step.
        seed (`int`).

    Iterating gives lists of [`ExampleKey`]; `set_epoch` before it.
    """

    def __init__(self, sizes, batch_size, num_processes=1, process_index=0, accumulation_steps=1, seed=0):
        self.sizes, self.batch_size, self.accumulation_steps, self.seed = sizes, batch_size, accumulation_steps, seed
        self.num_processes, self.process_index = num_processes, process_index
        self.examples_per_step = batch_size * num_processes * accumulation_steps
        self.epoch = 0

    def set_epoch(self, epoch: int):
        self.epoch = epoch

    def steps(self, size: int) -> int:
        return -(-size // self.examples_per_step)

    def __len__(self) -> int:
        return sum(self.steps(size) for size in self.sizes.values()) * self.accumulation_steps

    def __iter__(self) -> Iterator[list[ExampleKey]]:
        rng = random.Random(f"{self.seed}-{self.epoch}-order")
        queues = {}
        for (task, pair), size in self.sizes.items():
            order = list(range(size))
            random.Random(f"{self.seed}-{self.epoch}-{task}-{pair}-order").shuffle(order)
            missing = self.steps(size) * self.examples_per_step - size
            order += [order[i % size] for i in range(missing)]
            queues[task, pair] = order
        for step in range(max(map(self.steps, self.sizes.values()))):
            for task in ("qlm", "rr"):
                names = [name for name in self.sizes if name[0] == task and step < self.steps(self.sizes[name])]
                rng.shuffle(names)
                for name in names:
                    start = step * self.examples_per_step
                    keys = [
                        ExampleKey(*name, index, self.epoch)
                        for index in queues[name][start:][: self.examples_per_step]
                    ]
                    for part in range(self.accumulation_steps):
                        first = (part * self.num_processes + self.process_index) * self.batch_size
                        yield keys[first : first + self.batch_size]


__all__ = ["TaskBatchSampler"]
