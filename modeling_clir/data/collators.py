"""Turns examples of QLM and RR into batches of tensors."""

import hashlib
import re
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerBase

from .pairs import PairEncoder
from .sections import Example


MASK_MODES = ("query", "document", "mixed")
UNUSED = re.compile(r"\[unused\d+\]|<unused\d+>|<unk>NOTUSED")  # BERT's and ModernBERT's, Gemma's, CamemBERT's


def ordinary_words(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Returns the ids that may replace a masked token: all of the vocabulary that are neither special nor unused."""
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    special.update(tokenizer.all_special_ids)
    words = tokenizer.get_vocab().items()
    return torch.tensor(sorted(i for word, i in words if i not in special and not UNUSED.fullmatch(word)))


def mask_tokens(
    input_ids: torch.Tensor,
    candidates: torch.Tensor,
    probability: float,
    mask_token_id: int,
    replacements: torch.Tensor,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Chooses each candidate with `probability`. Of the chosen tokens 80 % become `mask_token_id`, 10 % become a random
    one of `replacements`, and 10 % stay (Devlin et al. 2019, BERT, section 3.1).

    Args:
        input_ids (`torch.LongTensor`, any shape), candidates (`torch.BoolTensor` of the same shape).
        replacements (`torch.LongTensor` of shape `(words,)`).

    Returns:
        The masked ids and the labels. The label of a chosen token is its original id; other labels are -100.
    """
    chances = torch.full(input_ids.shape, probability).masked_fill(~candidates, 0.0)
    chosen = torch.bernoulli(chances, generator=generator).bool()
    labels = input_ids.masked_fill(~chosen, -100)
    masked = torch.bernoulli(torch.full(input_ids.shape, 0.8), generator=generator).bool() & chosen
    swapped = torch.bernoulli(torch.full(input_ids.shape, 0.5), generator=generator).bool() & chosen & ~masked
    random_words = replacements[torch.randint(len(replacements), input_ids.shape, generator=generator)]
    output = input_ids.masked_fill(masked, mask_token_id)
    return torch.where(swapped, random_words, output), labels


@dataclass
class PretrainingCollator:
    """
    Turns examples of one task and one language pair into a batch of tensors, padded to the longest row:

    - QLM: `input_ids`, `attention_mask`, `token_type_ids` and `labels`, each of shape `(examples, length)`. `labels`
      is -100 except at the masked tokens. Every row has at least one masked token.
    - RR: `input_ids`, `attention_mask` and `token_type_ids`, each of shape `(examples * documents, length)`. The rows
      of an example follow each other, the positive first.

    An RR batch also has `teacher_scores` (float), `first_stage_scores` (float) and `grades` (long), each of shape
    `(examples, documents)`, if the examples have them.

    The batch also has `task`, `pairs` and `ids` (language pair and id of each example), `group_size` (documents of an example), and the
    numbers `queries_cut`, `documents_cut` and `rows`.

    Args:
        encoder (`PairEncoder`): tokenizer and lengths.
        mask_mode (`str`, *optional*, defaults to `"query"`): which tokens QLM masks: `"query"`, `"document"` or
            `"mixed"` (both). RR alone takes `None` and needs no mask token.
        mask_probability (`float`, defaults to 0.3): chance that QLM chooses one of these tokens.
        pad_to_multiple_of (`int`, *optional*): pads rows to a multiple of this number.

    Raises `ValueError` for another mask mode or probability, and if QLM's tokenizer has no mask token.
    """

    encoder: PairEncoder
    mask_mode: str | None = "query"
    mask_probability: float = 0.3
    pad_to_multiple_of: int | None = None
    replacements: torch.Tensor = field(init=False, repr=False)

    def __post_init__(self):
        if self.mask_mode is None:
            return
        if self.mask_mode not in MASK_MODES:
            raise ValueError(f"mask_mode must be one of {', '.join(MASK_MODES)}, got {self.mask_mode!r}")
        if not 0 < self.mask_probability < 1:
            raise ValueError(f"mask_probability must lie between 0 and 1, got {self.mask_probability}")
        if self.encoder.tokenizer.mask_token_id is None:
            raise ValueError("the tokenizer has no mask token, which QLM needs")
        self.replacements = ordinary_words(self.encoder.tokenizer)

    def __call__(self, examples: list[Example]) -> dict:
        task, group_size = examples[0].task, len(examples[0].documents)
        queries = [example.query for example in examples for _ in example.documents]
        documents = [document for example in examples for document in example.documents]
        encoded = self.encoder(queries, documents)
        rows = {name: encoded[name] for name in self.encoder.tokenizer.model_input_names}
        if task == "qlm":
            masked = [
                self.mask(torch.tensor(encoded["input_ids"][i]), encoded["sides"][i], example.seed)
                for i, example in enumerate(examples)
            ]
            rows["input_ids"] = [ids.tolist() for ids, _ in masked]
        batch = self.encoder.tokenizer.pad(rows, return_tensors="pt", pad_to_multiple_of=self.pad_to_multiple_of)
        batch = dict(batch)
        if task == "qlm":
            batch["labels"] = torch.full_like(batch["input_ids"], -100)
            is_token = batch["attention_mask"].bool()
            batch["labels"][is_token] = torch.cat([labels for _, labels in masked])
        for name in ("teacher_scores", "first_stage_scores", "grades"):
            if getattr(examples[0], name) is not None:
                batch[name] = torch.tensor([getattr(example, name) for example in examples])
        return batch | {
            "task": task,
            "pairs": [example.pair for example in examples],
            "ids": [example.id for example in examples],
            "group_size": group_size,
            "queries_cut": sum(e.query_cut or cut for e, cut in zip(examples, encoded["query_cut"][::group_size])),
            "documents_cut": sum(encoded["document_cut"]),
            "rows": len(documents),
        }

    def mask(self, input_ids: torch.Tensor, sides: list[int], seed: str):
        """Masks one row, `(length,)`, by its own seed: its masks do not depend on the rest of the batch."""
        wanted = {"query": (0,), "document": (1,), "mixed": (0, 1)}[self.mask_mode]
        candidates = torch.tensor([side in wanted for side in sides])
        generator = torch.Generator().manual_seed(stable_hash(seed))
        mask_token_id = self.encoder.tokenizer.mask_token_id
        output, labels = mask_tokens(
            input_ids, candidates, self.mask_probability, mask_token_id, self.replacements, generator
        )
        places = candidates.nonzero()[:, 0]
        if (labels == -100).all() and len(places):
            place = places[torch.randint(len(places), (), generator=generator)]
            output, labels = input_ids.clone(), torch.full_like(input_ids, -100)
            output[place], labels[place] = mask_token_id, input_ids[place]
        return output, labels


def stable_hash(text: str) -> int:
    """Maps a text to a number of 63 bits that, unlike `hash`, is the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


__all__ = ["MASK_MODES", "PretrainingCollator", "mask_tokens"]
