"""Makes training examples from the judged queries of collections."""

import logging
import random
from collections.abc import Sequence

from ..losses import TEACHER_LOSSES
from .collections import Collection
from .sections import Example, ExampleKey


logger = logging.getLogger(__name__)


class QueryDataset:
    """
    RR examples for finetuning: a query, one of its relevant documents, and negatives. Negatives are drawn in this
    order. A kind is drawn only after all documents of the kinds before it are used:

    1. documents that are judged not relevant for the query;
    2. candidates of the query (of the first stage) that are not judged;
    3. other documents of the collection that are not judged.

    Within a kind, every document is equally likely. No relevant document is a negative, and no document is drawn
    twice. Two losses differ:

    - `"listwise"` knows grades. The first kind is all judged documents of a lower grade than the example's relevant
      document. An example has the grades of its documents.
    - `"margin_mse"` and `"kl"` know a teacher, `teacher.run`. Only documents with a teacher's score are drawn, relevant
      or not. An example has the scores of its documents. The log counts judged documents and candidates without a
      score.

    Args:
        collections (`list[Collection]`).
        queries (`dict[str, list[str]]`): collection name to the ids of the training queries.
        num_negatives (`int`): negatives of an example.
        seed (`int`).
        rr_loss (`str`, defaults to `"pairwise"`): loss that the examples are for; see [`ranking_loss`].

    An example of a collection with `candidates.run` has the scores of the run. A document that the run does not list
    for the query has the lowest score of the query's listed documents. All documents have 0 if it lists none.

    The index is an [`ExampleKey`] whose pair is the collection's name. An example depends only on `seed` and its key.
    The time and memory of an example do not depend on the size of the collection.

    Raises `ValueError` if a collection's training queries have no relevant document, if a query has fewer than
    `num_negatives` documents that are not relevant, and if a collection lacks the teacher that the loss needs.
    """

    def __init__(
        self,
        collections: list[Collection],
        queries: dict[str, list[str]],
        num_negatives: int,
        seed: int,
        rr_loss: str = "pairwise",
    ):
        self.graded, self.taught = rr_loss == "listwise", rr_loss in TEACHER_LOSSES
        self.collections = {collection.name: collection for collection in collections}
        self.num_negatives, self.seed = num_negatives, seed
        self.documents = {name: list(collection.documents) for name, collection in self.collections.items()}
        self.positives = {
            name: [(q, d) for q in queries[name] for d, relevance in collection.qrels[q].items() if relevance > 0]
            for name, collection in self.collections.items()
        }
        what = "with a teacher's score " if self.taught else ""
        for name, collection in self.collections.items() if self.taught else ():
            self.positives[name] = keep_scored(collection, queries[name], self.positives[name])
        for name, positives in self.positives.items():
            if not positives:
                raise ValueError(f"{name}: no training query has a relevant document {what}".rstrip())
            for query, _ in positives:
                collection = self.collections[name]
                relevant = [document for document, relevance in collection.qrels[query].items() if relevance > 0]
                number = len(self.documents[name]) - len(relevant)
                if self.taught:
                    number = len(collection.teacher[query].keys() - set(relevant))
                if number < num_negatives:
                    raise ValueError(
                        f"{name}: query {query!r} has fewer than {num_negatives} documents {what}that are not relevant"
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
        least = judged[positive] if self.graded else 1
        negatives = [document for document, relevance in judged.items() if relevance < least]
        candidates, others = collection.candidates.get(query, ()), self.documents[key.pair]
        if self.taught:
            scores = collection.teacher[query]
            candidates = (collection.first_stage or {}).get(query, ())
            negatives, candidates = ([d for d in pool if d in scores] for pool in (negatives, candidates))
            others = list(scores)
        negatives = draw(negatives, {positive}, self.num_negatives, rng)
        for pool in (candidates, others):
            if missing := self.num_negatives - len(negatives):
                negatives += draw(pool, {*judged, *negatives}, missing, rng)
        documents = [positive, *negatives]
        first_stage_scores = None
        if collection.first_stage is not None:
            listed = collection.first_stage[query]
            lowest = min(listed.values(), default=0.0)
            first_stage_scores = [listed.get(document, lowest) for document in documents]
        return Example(
            "rr",
            key.pair,
            collection.queries[query],
            [collection.documents[document] for document in documents],
            seed,
            query_cut=False,
            teacher_scores=[scores[document] for document in documents] if self.taught else None,
            first_stage_scores=first_stage_scores,
            grades=[judged.get(document, 0) for document in documents] if self.graded else None,
            id=f"{query} {positive}",
        )


def keep_scored(collection: Collection, queries: list[str], positives: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """
    Returns the relevant documents that have a teacher's score, as `(query, document)`. Logs how many relevant and
    other documents have none. Raises `ValueError` for a collection without teacher.
    """
    if collection.teacher is None:
        raise ValueError(f"{collection.name} has no teacher.run; scripts/first_stage.py --teacher_model writes it")
    kept = [(query, document) for query, document in positives if document in collection.teacher[query]]
    first_stage = collection.first_stage or {}
    unscored = sum(
        len({*collection.qrels[query], *first_stage.get(query, ())} - collection.teacher[query].keys())
        for query in queries
    )
    if unscored:
        logger.warning(
            f"{collection.name}: {unscored} judged documents and candidates of the training queries have no score in "
            f"teacher.run and are not trained on; {len(positives) - len(kept)} of them are relevant"
        )
    return kept


def draw(pool: Sequence[str], excluded: set[str], number: int, rng: random.Random) -> list[str]:
    """Draws `number` of the pool that are not excluded; all, if there are fewer. Never goes through a large pool."""
    places = rng.sample(range(len(pool)), min(len(pool), number + len(excluded)))
    return [pool[place] for place in places if pool[place] not in excluded][:number]


__all__ = ["QueryDataset"]
