"""
The data code equals the 2021 code on made-up input. `PairEncoder` encodes and `mask_tokens` masks. This file, not the
package, has the functions of the 2021 code: its truncation, padding, mask of 2s, literal special tokens and sampling.
"""

import json
import random

import pytest
import torch
from transformers import BertTokenizerFast

from modeling_clir.data.collators import mask_tokens
from modeling_clir.data.pairs import PairEncoder

from .shared import GOLDEN


CASES = 15
NO_LIMIT = 10_000


def golden(name: str):
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def make_tokenizer(meta: dict, folder) -> BertTokenizerFast:
    (folder / "vocab.txt").write_text("\n".join(meta["vocab"]) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=meta["do_lower_case"])
    assert tokenizer.get_vocab() == {word: number for number, word in enumerate(meta["vocab"])}
    return tokenizer


@pytest.fixture
def collators(tmp_path):
    meta = golden("data_collators.json")
    return meta, make_tokenizer(meta, tmp_path)


def merge_literals(ids: list[int], tokenizer) -> list[int]:
    """Joins the three tokens of a literal "[SEP]" into the separator that the 2021 code made of it."""
    for special in tokenizer.all_special_tokens:
        pieces = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(special, split_special_tokens=True))
        merged = []
        for number in ids:
            merged.append(number)
            if merged[-len(pieces) :] == pieces:
                merged[-len(pieces) :] = [tokenizer.convert_tokens_to_ids(special)]
        ids = merged
    return ids


def rows_of(examples: list) -> tuple[list[str], list[str], list[int]]:
    """
    Returns queries, documents and labels of the rows. An example is a note, query ids, document ids, queries,
    documents and labels.
    """
    queries, documents, labels = ([item for example in examples for item in example[i]] for i in (3, 4, 5))
    return queries, documents, labels


def encode_2021(tokenizer, queries, documents, length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cuts the last token of the longer of query and document until the pair fits, and pads rows to `length`."""
    encoded = PairEncoder(tokenizer, NO_LIMIT, NO_LIMIT - 10)(queries, documents)
    ids, mask, types = (torch.zeros(len(queries), length, dtype=torch.long) for _ in range(3))
    for row, row_ids in enumerate(encoded["input_ids"]):
        sides = encoded["sides"][row]
        query, document = (
            merge_literals([number for number, at in zip(row_ids, sides) if at == side], tokenizer) for side in (0, 1)
        )
        while len(query) + len(document) + 3 > length:
            (query if len(query) > len(document) else document).pop()
        first = [tokenizer.cls_token_id, *query, tokenizer.sep_token_id]
        second = [*document, tokenizer.sep_token_id]
        ids[row, : len(first + second)] = torch.tensor(first + second)
        mask[row, : len(first + second)] = 1
        types[row, len(first) : len(first + second)] = 1
    return ids, mask, types


@pytest.mark.parametrize("number", range(CASES))
def test_collators(number, collators):
    meta, tokenizer = collators
    assert len(meta["cases"]) == CASES
    case = meta["cases"][number]
    examples = meta["rr_examples"] if case["collator"] == "rr" and "note" not in case else meta["qlm_examples"]
    queries, documents, relevance = rows_of(examples)
    ids, mask, types = encode_2021(tokenizer, queries, documents, meta["max_len"])
    if case["collator"] == "rr":
        labels = torch.tensor(relevance)[:, None]
    else:
        wanted = {"query": types == 0, "document": types == 1, "mixed": torch.ones_like(types).bool()}
        separators = (ids == tokenizer.cls_token_id) | (ids == tokenizer.sep_token_id)
        candidates = wanted[case["mask_mode"]] & ~separators & mask.bool()
        words = torch.arange(len(tokenizer))
        torch.manual_seed(case["seed"])
        ids, labels = mask_tokens(ids, candidates, case["mlm_probability"], tokenizer.mask_token_id, words)
    if case["glb_att"]:
        mask = torch.where((types == 0) & mask.bool(), 2, mask)
    output = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "labels": labels}
    for name, tensor in output.items():
        assert f"torch.{str(tensor.dtype).split('.')[-1]}" == case["dtypes"][name]
        assert tensor.tolist() == case["out"][name], name


def test_encoder_where_nothing_of_2021_matters(collators):
    """If a query fits and has no literal special token, the row equals the 2021 row without padding."""
    meta, tokenizer = collators
    unmasked = next(case for case in meta["cases"] if "note" in case)["out"]
    queries, documents, _ = rows_of(meta["qlm_examples"])
    encoded = PairEncoder(tokenizer, meta["max_len"], 20)(queries, documents)
    compared = 0
    for row, (query, document) in enumerate(zip(queries, documents)):
        if encoded["query_cut"][row] or "[" in query + document:
            continue
        length = sum(unmasked["attention_mask"][row])
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            assert encoded[name][row] == unmasked[name][row][:length], (row, name)
        compared += 1
    assert compared == 7
    assert encoded["query_cut"] == [row in (5, 7) for row in range(10)]


class Sampler2021:
    """
    The sampling of the 2021 code. All draws come from Python's `random`, in a fixed order. Construction draws
    `max_pairs` of the aligned pairs. Each item draws a coin for the direction, then the sentence, then for each
    negative a number that is compared with (3/4)^h, and the section. The pool has all sections of the sampled pairs,
    positive or negative; without negatives (QLM) it has only the positives.
    """

    def __init__(self, data: dict, num_negatives: int):
        self.data, self.num_negatives = data, num_negatives
        source, target = self.languages = data["lang_pair"][:2], data["lang_pair"][2:]
        chosen = set(random.sample(list(data["np"][source]), data["max_pairs"]))
        self.aligned = [key for key in data["np"][source] if key in chosen]
        used = {language: set() for language in self.languages}
        for one in self.aligned:
            other = data["np"][source][one]["p"]
            used[source].add(one)
            used[target].add(other)
            if num_negatives:
                used[target].update(data["np"][source][one]["n"])
                used[source].update(data["np"][target][other]["n"])
        self.pools = {language: [key for key in data["text"][language] if key in used[language]] for language in used}

    def __getitem__(self, index: int) -> list:
        side = 0 if random.random() < 0.5 else 1
        query_language, language = self.languages[side], self.languages[1 - side]
        one = self.aligned[index]
        query = (one, self.data["np"][self.languages[0]][one]["p"])[side]
        entry = self.data["np"][query_language][query]
        sentence = random.choice(self.data["sent_tokenize"][query_language][query])
        documents = [entry["p"]]
        for _ in range(self.num_negatives):
            from_pool = random.random() < 0.75 ** len(entry["n"])
            documents.append(random.choice(self.pools[language] if from_pool else entry["n"]))
        texts = [self.data["text"][language][document] for document in documents]
        number = len(documents)
        return [side, [query] * number, documents, [sentence] * number, texts, [1] + [0] * (number - 1)]


@pytest.mark.parametrize("task", ["rr", "qlm"])
def test_sampling(task):
    data = golden("datasets.json")
    expected = data[task]
    random.seed(expected["random_seed_before_init"])
    sampler = Sampler2021(data, data["num_neg"] if task == "rr" else 0)
    assert sampler.aligned == expected["flatten_parallel"]
    assert sampler.pools["en"] == expected["all_src_sections"]
    assert sampler.pools["fr"] == expected["all_tgt_sections"]
    assert len(expected["items"]) == len(expected["index_order"]) == 14
    assert [sampler[index] for index in expected["index_order"]] == expected["items"]


def test_no_row_of_256_global_tokens(tmp_path):
    """The 2021 code replaced the mask of such a row. Our queries, with [CLS] and [SEP], are always shorter."""
    for case in golden("safety_check.json"):
        for (number, _), runs in zip(case["rows_query_total"], case["out_rle"]):
            assert (runs == [[1, 512], [0, 512]]) == (number >= 256)
    encoder = PairEncoder(make_tokenizer(golden("data_collators.json"), tmp_path), max_length=1024)
    assert encoder.max_query_length + 2 < 256
    words = random.Random(0)
    texts = ["tower " * n for n in (126, 127, 128, 129, 255, 1000)]
    texts += ["w" * 99 + " " + "wort" * n for n in (1, 30, 300)] + ["长" * n for n in (127, 128, 129, 3000)]
    texts += [" ".join("word"[: words.randint(1, 4)] * words.randint(1, 9) for _ in range(300)) for _ in range(50)]
    encoded = encoder(texts, ["the end"] * len(texts))
    lengths = [encoded["sides"][row].count(0) for row in range(len(texts))]
    assert max(lengths) == encoder.max_query_length
    assert min(lengths) > 0
