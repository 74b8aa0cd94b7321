"""Training examples from the judged queries of collections."""

import random

from .collections import Collection
from .sections import Example, ExampleKey, sample_negatives


class QueryDataset:
    """
    RR examples for finetuning: a query, one of its relevant documents, and negatives sampled from its documents that
    are judged not relevant, else from the documents that are not judged for it.

    Args:
        collections (`list[Collection]`).
        queries (`dict[str, list[str]]`): of each collection's name, the ids of the training queries.
        num_negatives (`int`).
        seed (`int`).

    Indexed by [`ExampleKey`], whose pair is the collection's name. Raises `ValueError` where a collection's training
    queries have no relevant document.
    """

    def __init__(self, collections: list[Collection], queries: dict[str, list[str]], num_negatives: int, seed: int):
        self.collections = {collection.name: collection for collection in collections}
        self.num_negatives, self.seed = num_negatives, seed
        self.positives = {
            name: [(q, d) for q in queries[name] for d, relevance in collection.qrels[q].items() if relevance > 0]
            for name, collection in self.collections.items()
        }
        for name, positives in self.positives.items():
            if not positives:
                raise ValueError(f"{name}: no training query has a relevant document")
            for query, _ in positives:
                relevant = sum(relevance > 0 for relevance in self.collections[name].qrels[query].values())
                if len(self.collections[name].documents) - relevant < num_negatives:
                    raise ValueError(
                        f"{name}: query {query!r} has fewer than {num_negatives} documents that are not relevant"
                    )
        self.sizes = {("rr", name): len(positives) for name, positives in self.positives.items()}

    def __len__(self):
        return sum(self.sizes.values())

    def __getitem__(self, key: ExampleKey) -> Example:
        seed = f"{self.seed}-{key.epoch}-{key.pair}-{key.index}"
        rng = random.Random(seed)
        collection = self.collections[key.pair]
        query, positive = self.positives[key.pair][key.index]
        judged = collection.qrels[query]
        negatives = [document for document, relevance in judged.items() if relevance <= 0]
        if len(negatives) < self.num_negatives:
            negatives += [d for d in collection.documents if d not in judged]
        chosen = sample_negatives(positive, [], negatives, self.num_negatives, rng)
        texts = [collection.documents[document] for document in [positive, *chosen]]
        return Example("rr", key.pair, collection.queries[query], texts, seed, query_cut=False)


__all__ = ["QueryDataset"]
