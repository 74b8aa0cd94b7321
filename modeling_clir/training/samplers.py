"""Chooses the examples of each batch."""

import random
from array import array
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow.compute as pc

from ..data.pairs import PairEncoder
from ..data.sections import MAX_QUERY_WORDS, ExampleKey, PretrainingDataset, split_sentences


SAMPLED_SECTIONS = 500  # per language, to measure tokens per character
BUCKET = 1.1  # examples are shuffled with others that are at most this many times as long


class TaskBatchSampler:
    """
    Gives batches of one task and one language pair. All processes, and all batches that are accumulated into one
    optimizer step, have the same task and pair.

    An epoch is a sequence of rounds. In a round each language pair has one QLM step, in random order, and then one RR
    step (Yu, Fei, Li 2021, released code), until the examples of the pair are used up. The last step of a pair is
    filled up with its first examples.

    Args:
        sizes (`dict[tuple[str, str], int]`): examples of each (task, pair).
        batch_size (`int`): examples per batch and process.
        num_processes, process_index (`int`, default to 1 and 0): for distributed training.
        accumulation_steps (`int`, defaults to 1): batches per optimizer step and process.
        seed (`int`, defaults to 0): seed of the order.

    Iterating gives lists of [`ExampleKey`]. Call `set_epoch` before each epoch.
    """

    def __init__(self, sizes, batch_size, num_processes=1, process_index=0, accumulation_steps=1, seed=0):
        self.sizes, self.batch_size, self.accumulation_steps, self.seed = sizes, batch_size, accumulation_steps, seed
        self.num_processes, self.process_index = num_processes, process_index
        self.batches_per_step = num_processes * accumulation_steps
        self.epoch = 0

    def set_epoch(self, epoch: int):
        self.epoch = epoch

    def number_of_steps(self, name: tuple[str, str]) -> int:
        return -(-self.sizes[name] // (self.batch_size * self.batches_per_step))

    def steps(self, name: tuple[str, str], rng: random.Random) -> list[Sequence[int]]:
        """Draws the examples of each optimizer step of a (task, pair) in this epoch."""
        size = self.sizes[name]
        order = array("q", range(size))  # a list takes five times the memory
        rng.shuffle(order)
        examples = self.batch_size * self.batches_per_step
        order.extend(order[i % size] for i in range(self.number_of_steps(name) * examples - size))
        return [order[start : start + examples] for start in range(0, len(order), examples)]

    def batch(self, step: Sequence[int], part: int) -> Sequence[int]:
        """Returns one of the `batches_per_step` batches of a step."""
        return step[part * self.batch_size :][: self.batch_size]

    def __len__(self) -> int:
        return sum(map(self.number_of_steps, self.sizes)) * self.accumulation_steps

    def __iter__(self) -> Iterator[list[ExampleKey]]:
        rng = random.Random(f"{self.seed}-{self.epoch}-order")
        steps = {
            name: self.steps(name, random.Random(f"{self.seed}-{self.epoch}-{name[0]}-{name[1]}-order"))
            for name in self.sizes
        }
        for step in range(max(map(len, steps.values()))):
            for task in sorted({task for task, _ in steps}):
                names = [name for name in steps if name[0] == task and step < len(steps[name])]
                rng.shuffle(names)
                for name in names:
                    for part in range(self.accumulation_steps):
                        batch = self.batch(steps[name][step], part * self.num_processes + self.process_index)
                        yield [ExampleKey(*name, index, self.epoch) for index in batch]


class TokenBudgetSampler(TaskBatchSampler):
    """
    A [`TaskBatchSampler`] that fills batches up to a number of tokens, with examples of similar length. Steps of
    different lengths come in random order.

    The examples of a (task, pair) are sorted by length and cut into steps once: every epoch has the same number of
    steps. Each epoch shuffles the steps, and the examples that differ by less than 10 % in length. Each example occurs
    once in an epoch. Only in the step of the longest examples may one occur twice, if the step has fewer examples than
    batches.

    A step holds at most `max_tokens` times its number of batches, so two processes take the same steps as one process
    with twice the budget. A batch of the step may exceed `max_tokens` by less than an example.

    Args:
        lengths (`dict[tuple[str, str], np.ndarray]`): tokens of each example of each (task, pair), of shape
            `(examples,)`.
        max_tokens (`int`): tokens per batch and process.
        num_processes, process_index, accumulation_steps, seed: see [`TaskBatchSampler`].

    Raises `ValueError` if an example is longer than `max_tokens`.
    """

    def __init__(self, lengths, max_tokens, num_processes=1, process_index=0, accumulation_steps=1, seed=0):
        sizes = {name: len(tokens) for name, tokens in lengths.items()}
        super().__init__(sizes, None, num_processes, process_index, accumulation_steps, seed)
        self.buckets, self.ends = {}, {}
        for name, tokens in lengths.items():
            if tokens.max() > max_tokens:
                raise ValueError(
                    f"max_tokens_per_batch ({max_tokens}) is less than the longest {name[0]} example of {name[1]}, "
                    f"about {tokens.max()} tokens with all its documents: raise max_tokens_per_batch, or lower "
                    "max_length or num_negatives"
                )
            order = np.argsort(tokens, kind="stable")
            starts = np.flatnonzero(np.diff(np.floor(np.log(tokens[order]) / np.log(BUCKET)))) + 1
            self.buckets[name] = np.split(order, starts)
            # An example counts as long as the longest of its bucket, whose place it may take.
            total = np.cumsum(np.concatenate([np.full(len(b), tokens[b[-1]], int) for b in self.buckets[name]]))
            ends = [0]
            while ends[-1] < len(total):
                before = total[ends[-1] - 1] if ends[-1] else 0
                ends.append(int(np.searchsorted(total, before + max_tokens * self.batches_per_step, side="right")))
            self.ends[name] = ends

    def number_of_steps(self, name: tuple[str, str]) -> int:
        return len(self.ends[name]) - 1

    def steps(self, name: tuple[str, str], rng: random.Random) -> list[Sequence[int]]:
        order = []
        for bucket in self.buckets[name]:
            examples = bucket.tolist()
            rng.shuffle(examples)
            order += examples
        steps = [order[start:end] for start, end in zip(self.ends[name], self.ends[name][1:])]
        rng.shuffle(steps)
        return steps

    def batch(self, step: Sequence[int], part: int) -> Sequence[int]:
        return step[part :: self.batches_per_step] or [step[part % len(step)]]


def estimate_lengths(dataset: PretrainingDataset, encoder: PairEncoder) -> dict[tuple[str, str], np.ndarray]:
    """
    Estimates the tokens of each example of each (task, pair), all its rows together, without tokenizing the corpus.
    Returns arrays of shape `(examples,)`.

    An estimate is the mean of both directions. It adds the document (its characters times the tokens per character of
    its language) and the mean length of a query; both rates are measured on 500 sections. Each negative counts as the
    mean of all sections that may be drawn.

    Estimates are unbiased. The estimate of one example is easily off by half, because its query, direction and
    negatives are drawn later. Batches are off by less. On chapters, news and paragraphs in en-de and fr-es, batches of
    15 to 40 QLM examples are off by at most 5 %, and batches of 4 to 10 RR examples with 3 negatives are off by +17 %
    to -32 %. Same-language pairs lose one sentence of the document; estimates ignore that.
    """
    special = encoder.tokenizer.num_special_tokens_to_add(pair=True)
    documents, queries = {}, {}
    for language, sections in dataset.sections.items():
        rows = np.unique(np.linspace(0, len(sections) - 1, SAMPLED_SECTIONS).astype(int))
        texts = sections[rows]["text"]
        rng = random.Random(f"{dataset.seed}-{language}")
        sentences = [rng.choice(split_sentences(text, language)).split()[:MAX_QUERY_WORDS] for text in texts]
        tokens, query_tokens = (
            [len(ids) for ids in encoder.tokenizer(list(some), add_special_tokens=False, verbose=False)["input_ids"]]
            for some in (texts, map(" ".join, sentences))
        )
        documents[language] = pc.utf8_length(sections.data["text"]).to_numpy() * (sum(tokens) / sum(map(len, texts)))
        queries[language] = np.minimum(query_tokens, encoder.max_query_length).mean()
    lengths = {}
    for task, name in dataset.sizes:
        pairs, both = dataset.pairs[name], 0
        for side in (0, 1):
            language, other = pairs.languages[side], pairs.languages[1 - side]
            rows = np.minimum(queries[language] + special + documents[other], encoder.max_length)
            both = both + rows[pairs.rows[1 - side]]
            if task == "rr":
                both = both + dataset.num_negatives * rows[pairs.pools[1 - side]].mean()
        if task == "rr" and name in dataset.taught:
            both = both[dataset.taught[name]]
        lengths[task, name] = np.ceil(both / 2).astype(int)
    return lengths


__all__ = ["TaskBatchSampler", "TokenBudgetSampler", "estimate_lengths"]
