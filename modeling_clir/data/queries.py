"""Makes training examples from the judged queries of collections."""

import random
from collections.abc import Sequence

from .collections import Collection
from .sections import Example, ExampleKey


class QueryDataset:
    """
    RR examples for finetuning: a query, one of its relevant documents, and negatives. Negatives are drawn in this
    order. A kind is drawn only after all documents of the kinds before it are used:

    1. documents that are judged not relevant for the query;
    2. candidates of the query (of the first stage) that are not judged;
    3. other documents of the collection that are not judged.

    Within a kind, every document is equally likely. No relevant document is a negative, and no document is drawn
    twice.

    Args:
        collections (`list[Collection]`).
        queries (`dict[str, list[str]]`): collection name to the ids of the training queries.
        num_negatives (`int`): negatives of an example.
        seed (`int`).

    An example of a collection with `candidates.run` has the scores of the run. A document that the run does not list
    for the query has the lowest score of the query's listed documents. All documents have 0 if it lists none.

    The index is an [`ExampleKey`] whose pair is the collection's name. An example depends only on `seed` and its key.
    The time and memory of an example do not depend on the size of the collection.

    Raises `ValueError` if a collection's training queries have no relevant document, or if a query has fewer than
    `num_negatives` documents that are not relevant.
    """

    def __init__(self, collections: list[Collection], queries: dict[str, list[str]], num_negatives: int, seed: int):
        self.collections = {collection.name: collection for collection in collections}
        self.num_negatives, self.seed = num_negatives, seed
        self.documents = {name: list(collection.documents) for name, collection in self.collections.items()}
        self.positives = {
            name: [(q, d) for q in queries[name] for d, relevance in collection.qrels[q].items() if relevance > 0]
            for name, collection in self.collections.items()
        }
        for name, positives in self.positives.items():
            if not positives:
                raise ValueError(f"{name}: no training query has a relevant document")
            for query, _ in positives:
                relevant = sum(relevance > 0 for relevance in self.collections[name].qrels[query].values())
                if len(self.documents[name]) - relevant < num_negatives:
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
        negatives = draw(negatives, {positive}, self.num_negatives, rng)
        for pool in (collection.candidates.get(query, ()), self.documents[key.pair]):
            if missing := self.num_negatives - len(negatives):
                negatives += draw(pool, {*judged, *negatives}, missing, rng)
        documents = [positive, *negatives]
        texts = [collection.documents[document] for document in documents]
        scores = None
        if collection.first_stage is not None:
            listed = collection.first_stage[query]
            lowest = min(listed.values(), default=0.0)
            scores = [listed.get(document, lowest) for document in documents]
        return Example("rr", key.pair, collection.queries[query], texts, seed, False, first_stage_scores=scores)


def draw(pool: Sequence[str], excluded: set[str], number: int, rng: random.Random) -> list[str]:
    """Draws `number` of the pool that are not excluded; all, if there are fewer. Never goes through a large pool."""
    places = rng.sample(range(len(pool)), min(len(pool), number + len(excluded)))
    return [pool[place] for place in places if pool[place] not in excluded][:number]


__all__ = ["QueryDataset"]
