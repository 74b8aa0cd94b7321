"""Batches of QLM and RR."""

import math
import random
from copy import deepcopy

import pytest
import torch
from transformers import BertTokenizerFast

from modeling_clir.data.collators import MASK_MODES, PretrainingCollator, mask_tokens, ordinary_words
from modeling_clir.data.pairs import PairEncoder
from modeling_clir.data.sections import Example, ExampleKey, PretrainingDataset
from modeling_clir.loading import load_tokenizer

from ..helpers import WORDS, tokens


def example(task: str, query: str, *texts: str, seed="0", cut=False) -> Example:
    return Example(task, "en-de", query, list(texts), seed, cut)


def collator(tokenizer, **options) -> PretrainingCollator:
    return PretrainingCollator(PairEncoder(tokenizer, 40, 12), **options)


def test_ordinary_words(tokenizer):
    words = tokenizer.convert_ids_to_tokens(ordinary_words(tokenizer))
    assert sorted(words) == sorted(set(WORDS) - set(WORDS[:35]))
    assert WORDS[34] == "[unused29]"


def random_examples(number: int, seed: int = 0, longest: int = 15) -> list[Example]:
    rng = random.Random(seed)
    return [
        example(
            "qlm",
            " ".join(f"q{rng.randrange(60)}" for _ in range(rng.randint(1, longest))),
            " ".join(f"d{rng.randrange(60)}" for _ in range(rng.randint(1, 40))),
            seed=f"{seed}-{i}",
        )
        for i in range(number)
    ]


@pytest.mark.parametrize("mode", MASK_MODES)
@pytest.mark.parametrize("multiple", [None, 16])
def test_qlm_batch(mode, multiple, tokenizer):
    examples = random_examples(64)
    batch = collator(tokenizer, mask_mode=mode, pad_to_multiple_of=multiple)(examples)
    encoded = PairEncoder(tokenizer, 40, 12)([e.query for e in examples], [e.documents[0] for e in examples])
    length = max(map(len, encoded["input_ids"]))
    length = length if multiple is None else -(-length // multiple) * multiple
    for name in ("input_ids", "attention_mask", "token_type_ids", "labels"):
        assert batch[name].shape == (64, length) and batch[name].dtype == torch.long
    special = set(tokenizer.all_special_ids)
    for row in range(64):
        ids, sides = encoded["input_ids"][row], [*encoded["sides"][row]]
        sides += [-1] * (length - len(sides))
        labels, output = batch["labels"][row].tolist(), batch["input_ids"][row].tolist()
        chosen = [place for place, label in enumerate(labels) if label != -100]
        assert chosen
        assert {sides[place] for place in chosen} <= {"query": {0}, "document": {1}, "mixed": {0, 1}}[mode]
        assert batch["attention_mask"][row].tolist() == [1] * len(ids) + [0] * (length - len(ids))
        padded = ids + [tokenizer.pad_token_id] * (length - len(ids))
        for place, original in enumerate(padded):
            if place in chosen:
                assert labels[place] == original and original not in special
                assert output[place] == tokenizer.mask_token_id or output[place] not in special
                assert "unused" not in tokenizer.convert_ids_to_tokens(output[place])
            else:
                assert output[place] == original
    assert batch["task"] == "qlm" and batch["group_size"] == 1 and batch["rows"] == 64
    assert batch["pairs"] == ["en-de"] * 64
    assert batch["queries_cut"] == sum(len(e.query.split()) > 12 for e in examples) > 0
    assert batch["documents_cut"] == sum(encoded["document_cut"]) > 0


@pytest.mark.parametrize("mode", MASK_MODES)
def test_every_row_has_a_masked_token(mode, tokenizer):
    examples = [example("qlm", "q1", "d1", seed=str(i)) for i in range(200)]
    batch = collator(tokenizer, mask_mode=mode, mask_probability=0.01)(examples)
    places = (batch["labels"] != -100).nonzero()
    assert places[:, 0].tolist() == list(range(200))
    assert set(places[:, 1].tolist()) == {"query": {1}, "document": {3}, "mixed": {1, 3}}[mode]


def test_masks_do_not_depend_on_the_batch(tokenizer):
    collate, examples = collator(tokenizer), random_examples(16)

    def rows(batch):
        lengths = batch["attention_mask"].sum(1).tolist()
        return [(i[:n].tolist(), o[:n].tolist()) for i, o, n in zip(batch["input_ids"], batch["labels"], lengths)]

    together = rows(collate(examples))
    torch.manual_seed(1)
    random.seed(1)
    assert together == [rows(collate([one]))[0] for one in examples]
    assert together[::-1] == rows(collate(examples[::-1]))
    same = [example("qlm", examples[0].query, *examples[0].documents, seed=str(i)) for i in range(40)]
    assert len({str(row) for row in rows(collate(same))}) > 20
    generator = torch.get_rng_state()
    collate(examples)
    assert torch.equal(generator, torch.get_rng_state())


def test_shares_of_masking(tokenizer):
    """30 % are chosen: 80 % become [MASK], 10 % another word (by chance the same word), 10 % stay."""
    words = ordinary_words(tokenizer)
    ids = words[torch.randint(len(words), (400, 100), generator=torch.Generator().manual_seed(0))]
    candidates = torch.ones_like(ids, dtype=torch.bool)
    candidates[:, ::2] = False
    generator = torch.Generator().manual_seed(1)
    output, labels = mask_tokens(ids, candidates, 0.3, tokenizer.mask_token_id, words, generator)
    chosen = labels != -100
    assert not chosen[~candidates].any() and torch.equal(output[~chosen], ids[~chosen])
    assert torch.equal(labels[chosen], ids[chosen])
    number = chosen.sum().item()

    def close(count, total, share):
        assert abs(count / total - share) < 4 * math.sqrt(share * (1 - share) / total), (count, total, share)

    close(number, candidates.sum().item(), 0.3)
    masked, same = output[chosen] == tokenizer.mask_token_id, output[chosen] == ids[chosen]
    close(masked.sum().item(), number, 0.8)
    close(same.sum().item(), number, 0.1 + 0.1 / len(words))
    swapped = output[chosen][~masked & ~same]
    assert set(swapped.tolist()) <= set(words.tolist()) and len(set(swapped.tolist())) > 0.9 * len(words)


def test_rr_batch(tokenizer):
    examples = [example("rr", f"q{i}", f"d{i} d1", f"d{i + 10}", f"d{i + 20} d1 d2", cut=i == 1) for i in range(3)]
    examples.append(example("rr", " ".join(["q5"] * 13), "d1", "d2", " ".join(["d3"] * 40)))
    batch = collator(tokenizer)(examples)
    assert "labels" not in batch and batch["group_size"] == 3 and batch["rows"] == 12 and batch["task"] == "rr"
    assert batch["pairs"] == ["en-de"] * 4
    assert batch["queries_cut"] == 2 and batch["documents_cut"] == 1  # of queries, not of rows
    assert batch["input_ids"].shape == batch["attention_mask"].shape == batch["token_type_ids"].shape == (12, 40)
    for row in range(9):
        ids = batch["input_ids"][row][batch["attention_mask"][row].bool()]
        expected = f"[CLS] {examples[row // 3].query} [SEP] {examples[row // 3].documents[row % 3]} [SEP]"
        assert tokens(tokenizer, ids) == expected
        assert batch["token_type_ids"][row].sum() == len(expected.split()) - 3


def test_padding_on_the_left(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    left = BertTokenizerFast.from_pretrained(tmp_path, padding_side="left")
    batch, other = collator(left)(random_examples(8)), collator(tokenizer)(random_examples(8))
    for name in ("input_ids", "labels", "token_type_ids"):
        for row in range(8):
            one, two = (b[name][row][b["attention_mask"][row].bool()] for b in (batch, other))
            assert torch.equal(one, two)
    assert not (batch["labels"][~batch["attention_mask"].bool()] != -100).any()


@pytest.mark.parametrize("option", [{"mask_mode": "Query"}, {"mask_probability": 0}, {"mask_probability": 1.0}])
def test_collator_refuses(option, tokenizer):
    with pytest.raises(ValueError, match=next(iter(option))):
        collator(tokenizer, **option)


def test_sample_corpus(sample_corpus, tiny_bert):
    """Every example of the sample gives a complete batch."""
    languages = ["en-de", "fr-en", "es-es"]
    dataset = PretrainingDataset(str(sample_corpus), {"qlm": languages, "rr": languages[:2]}, num_negatives=2)
    collate = PretrainingCollator(PairEncoder(load_tokenizer(str(tiny_bert)), 64, 24))
    for (task, pair), size in dataset.sizes.items():
        examples = [dataset[ExampleKey(task, pair, index)] for index in range(size)]
        batch = collate(examples)
        assert batch["rows"] == len(batch["input_ids"]) == size * (3 if task == "rr" else 1)
        assert all(len(set(e.documents)) == len(e.documents) == batch["group_size"] for e in examples)
        assert task == "rr" or (batch["labels"] != -100).any(1).all()
        assert {frozenset(direction.split("-")) for direction in batch["pairs"]} == {frozenset(pair.split("-"))}
    validation = PretrainingDataset(str(sample_corpus), {"qlm": ["en-de"]}, split="validation")
    texts = {validation[ExampleKey("qlm", "en-de", i, 0, 0)].documents[0] for i in range(len(validation))}
    train = {dataset[ExampleKey("qlm", "en-de", i, 0, 0)].documents[0] for i in range(dataset.sizes["qlm", "en-de"])}
    assert texts and train and texts.isdisjoint(train)


def test_only_qlm_needs_a_mask_token(tokenizer):
    tokenizer = deepcopy(tokenizer)
    tokenizer.mask_token = None
    with pytest.raises(ValueError, match="the tokenizer has no mask token, which QLM needs"):
        collator(tokenizer)
    batch = collator(tokenizer, mask_mode=None)([example("rr", "q1", "d1", "d2")])
    assert batch["input_ids"].shape[0] == 2 and "labels" not in batch


def test_scores_and_grades(tokenizer):
    examples = [example("rr", "q1", "d1", "d2 d3"), example("rr", "q2", "d4", "d5")]
    batch = collator(tokenizer, mask_mode=None)(examples)
    assert "teacher_scores" not in batch and "grades" not in batch
    for i, one in enumerate(examples):
        one.teacher_scores, one.grades = [1.5 + i, -2], [2, i]
    batch = collator(tokenizer, mask_mode=None)(examples)
    assert batch["teacher_scores"].dtype == torch.float32 and batch["grades"].dtype == torch.long
    assert batch["teacher_scores"].tolist() == [[1.5, -2], [2.5, -2]] and batch["grades"].tolist() == [[2, 0], [2, 1]]
