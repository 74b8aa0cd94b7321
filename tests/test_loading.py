"""Opening checkpoints: every class and runner has the same rules, and refuses bad checkpoints before any batch."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    CanineConfig,
    Data2VecTextConfig,
    FNetConfig,
    GPT2Config,
    PreTrainedTokenizerFast,
    RobertaConfig,
    T5Config,
    XLMRobertaTokenizerFast,
    XLNetConfig,
    XmodConfig,
)

from modeling_clir import BertLongConfig, BertLongForSequenceClassification, BertLongForXLRetrieval
from modeling_clir.convert import main
from modeling_clir.data.pairs import PairEncoder
from modeling_clir.data.questions import Question
from modeling_clir.loading import load_pretrained
from modeling_clir.reader import Reader
from modeling_clir.reranker import Reranker
from modeling_clir.spans_bertlong import max_positions

from .helpers import texts, train_tokenizer


SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
WORDS = [f"{letter}{i}" for letter in "qd" for i in range(40)]
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
SMALL |= {"vocab_size": len(SPECIAL + WORDS), "max_position_embeddings": 66, "initializer_range": 0.3}
ROBERTA = SMALL | {"pad_token_id": 1, "type_vocab_size": 1}
LENGTHS = {"max_length": 40, "doc_stride": 4, "max_question_length": 10}
AT_THE_DOORS = {
    "rank": lambda folder, **options: Reranker.from_pretrained(
        folder, max_length=40, max_query_length=10, new_head=True, **options
    ),
    "read": lambda folder, **options: Reader.from_pretrained(folder, new_head=True, **LENGTHS, **options),
    "align": lambda folder, **options: load_pretrained(AutoModel, folder, **options),
}
each_door = pytest.mark.parametrize("door", AT_THE_DOORS)


def word_tokenizer(types=True, words=WORDS, **options) -> PreTrainedTokenizerFast:
    """Makes a tokenizer with a token per word. With `types` the document has type 1."""
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*SPECIAL, *words])}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    pair = f"<s>:0 $A:0 </s>:0 </s>:{int(types)} $B:{int(types)} </s>:{int(types)}"
    backend.post_processor = processors.TemplateProcessing("<s> $A </s>", pair, [("<s>", 0), ("</s>", 2)])
    names = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>"}
    inputs = ["input_ids", *["token_type_ids"] * types, "attention_mask"]
    options = {"mask_token": "<mask>", "model_input_names": inputs} | names | options
    return PreTrainedTokenizerFast(tokenizer_object=backend, **options)


def save(folder, config, tokenizer, auto_class=AutoModelForSequenceClassification, **changes):
    torch.manual_seed(0)
    model = auto_class.from_config(config, **changes).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def weights_of(opened) -> torch.nn.Module:
    return opened[0] if isinstance(opened, tuple) else opened.model


# ---------------------------------------------------------------------------------------------------------------------
# Options and precision
# ---------------------------------------------------------------------------------------------------------------------


@each_door
def test_options_reach_configuration_weights_and_tokenizer(door, tmp_path, monkeypatch):
    save(tmp_path / "inner", BertConfig(**SMALL, num_labels=1), word_tokenizer())
    seen = []
    for auto_class in (AutoConfig, AutoTokenizer, *(AutoModel, AutoModelForSequenceClassification)):
        original = auto_class.from_pretrained

        def spy(source, *args, original=original, auto_class=auto_class, **options):
            seen.append((auto_class.__name__, options))
            return original(source, *args, **options)

        monkeypatch.setattr(auto_class, "from_pretrained", spy)
    options = {"subfolder": "inner", "revision": "old", "local_files_only": True, "cache_dir": str(tmp_path / "cache")}
    AT_THE_DOORS[door](tmp_path, token="hf_x", **options)
    names = {name for name, _ in seen}
    assert {"AutoConfig", "AutoTokenizer"} < names or door == "read"
    for name, given in seen:
        assert {key: given.get(key) for key in options} == options and given["token"] == "hf_x", name


@each_door
def test_half_precision_on_a_cpu(door, tmp_path):
    model = save(tmp_path, BertConfig(**SMALL, num_labels=1), word_tokenizer())
    model.half().save_pretrained(tmp_path)
    opened = weights_of(AT_THE_DOORS[door](tmp_path))
    assert {parameter.dtype for parameter in opened.parameters()} == {torch.float32}
    name, tensor = next((n, t) for n, t in opened.named_parameters() if "word_embeddings" in n)
    assert torch.equal(tensor, model.bert.embeddings.word_embeddings.weight.float()), name
    for asked, found in ((torch.bfloat16, torch.bfloat16), ("auto", torch.float16), ("float32", torch.float32)):
        assert weights_of(AT_THE_DOORS[door](tmp_path, dtype=asked)).dtype == found
    assert (
        weights_of(AT_THE_DOORS[door](tmp_path, torch_dtype=torch.bfloat16)).dtype == torch.bfloat16
    )  # the older name
    quantized = weights_of(AT_THE_DOORS[door](tmp_path, dtype="int8"))
    assert any("quantized" in type(module).__module__ for module in quantized.modules())


def test_half_precision_orders_documents(tmp_path):
    """Scores of bfloat16 weights are float32 numbers; as bfloat16 they would tie."""
    save(tmp_path, BertConfig(**SMALL, num_labels=1), word_tokenizer())
    reranker = Reranker.from_pretrained(tmp_path, max_query_length=10, dtype=torch.bfloat16)
    documents = [f"d{i} d{j}" for i in range(20) for j in range(10)]
    scores = [hit["score"] for hit in reranker.rank("q1", documents)]
    as_bfloat16 = torch.tensor(scores).bfloat16().tolist()
    assert len(set(scores)) == 200 > len(set(as_bfloat16))


def test_long_documents_at_the_door(tmp_path):
    save(tmp_path, BertConfig(**SMALL, num_labels=1), word_tokenizer())
    reranker = Reranker.from_pretrained(tmp_path, max_length=20, max_query_length=5, long_documents="maxp")
    long = " ".join(f"d{i}" for i in range(40))
    (score,) = reranker.score([("q1", long)], progress=False)
    assert reranker.counts["passages"] > 1 and reranker.counts["documents_cut"] == 0
    plain = Reranker.from_pretrained(tmp_path, max_length=20, max_query_length=5)
    assert plain.score([("q1", long)], progress=False) != [score] and plain.counts["documents_cut"] == 1


def test_configuration_options_reach_the_model(tmp_path):
    """X-MOD's language is such an option: without it X-MOD is refused."""
    save(tmp_path, XmodConfig(**ROBERTA, num_labels=1, languages=["de_DE", "en_XX"]), word_tokenizer(False))
    with pytest.raises(
        ValueError, match=r"a xmod does not compute .* Please call `XmodPreTrainedModel.set_default_la"
    ):
        Reranker.from_pretrained(tmp_path, max_query_length=10)
    scores = [
        Reranker.from_pretrained(tmp_path, max_query_length=10, default_language=language).rank("q1", ["d1"])
        for language in ("de_DE", "en_XX")
    ]
    assert scores[0] != scores[1]


# ---------------------------------------------------------------------------------------------------------------------
# Token types and positions
# ---------------------------------------------------------------------------------------------------------------------


@each_door
def test_models_without_token_types_get_none(door, tmp_path):
    save(tmp_path, RobertaConfig(**ROBERTA, num_labels=1), word_tokenizer(types=True))
    opened = AT_THE_DOORS[door](tmp_path)
    if door == "rank":
        assert len(opened.rank("q1", ["d1", "d2 d3"])) == 2
    if door == "read":
        assert opened.answer([Question("1", "q1", "d1 d2", [])], progress=False)["1"].answer
    tokenizer = opened[1] if door == "align" else opened.encoder.tokenizer
    assert tokenizer.model_input_names == ["input_ids", "attention_mask"]


def test_a_bertlong_without_token_types_is_said(tmp_path, caplog):
    """Older versions converted such checkpoints: they open."""
    config = BertLongConfig(**SMALL, num_labels=1, attention_window=8)
    save(tmp_path / "with", config, word_tokenizer(), auto_class=AutoModelForSequenceClassification)
    save(tmp_path / "without", config, word_tokenizer(types=False), auto_class=AutoModelForSequenceClassification)
    Reranker.from_pretrained(tmp_path / "with", max_query_length=10)
    assert "gives no token types" not in caplog.text
    for door in AT_THE_DOORS.values():
        caplog.clear()
        door(tmp_path / "without")
        assert "gives no token types, by which a BertLong finds the query: only [CLS] is global" in caplog.text


@pytest.mark.parametrize("kind", ["sentencepiece", "names"])
def test_conversion_marks_the_query(kind, tmp_path, caplog):
    """One BERT has XLM-R's tokenizer; another has a tokenizer without token types, as sentence encoders have."""
    if kind == "names":
        tokenizer = word_tokenizer(model_input_names=["input_ids", "attention_mask"])
    else:
        vocabulary = [(word, 0.0) for word in SPECIAL] + [(f"▁{word}", -5.0) for word in WORDS]
        tokenizer = XLMRobertaTokenizerFast(vocab=vocabulary)
    bert = save(tmp_path / "bert", BertConfig(**SMALL | {"vocab_size": len(tokenizer)}, num_labels=1), tokenizer)
    assert main([str(tmp_path / "bert"), str(tmp_path / "long")]) == 0
    assert "trained without token types" in caplog.text
    reread = AutoTokenizer.from_pretrained(tmp_path / "long", trust_remote_code=True)
    plain, marked = tokenizer("q1 q2", "d1 d2 d3"), reread("q1 q2", "d1 d2 d3")
    assert marked["input_ids"] == plain["input_ids"] and reread("q1")["input_ids"] == tokenizer("q1")["input_ids"]
    assert marked["token_type_ids"] == [0] * 4 + [1] * 5 and reread("q1")["token_type_ids"] == [0] * 3
    for name in ("mask_token", "pad_token", "cls_token", "sep_token", "padding_side"):
        assert getattr(reread, name) == getattr(tokenizer, name)
    assert reread.model_max_length == 1024
    reranker = Reranker.from_pretrained(tmp_path / "long")
    table = reranker.model.bert.embeddings.token_type_embeddings.weight
    assert torch.equal(table, bert.bert.embeddings.token_type_embeddings.weight[:1].expand(2, -1))
    # Within the window the scores are the BERT's own, which gets no token types.
    with torch.no_grad():
        expected = bert(torch.tensor([plain["input_ids"]])).logits.item()
    assert reranker.score([("q1 q2", "d1 d2 d3")], progress=False) == [pytest.approx(expected, abs=1e-5)]


def test_conversion_of_a_bert_with_one_token_type(tmp_path):
    """Its tokenizer gives two. Alike for one that gives none, the document gets the embedding of the only type."""
    config = BertConfig(**SMALL, num_labels=1, type_vocab_size=1)
    bert = save(tmp_path / "bert", config, word_tokenizer())
    assert main([str(tmp_path / "bert"), str(tmp_path / "long"), "--attention_window", "64"]) == 0
    reranker = Reranker.from_pretrained(tmp_path / "long", max_query_length=10)
    inputs = AutoTokenizer.from_pretrained(tmp_path / "long")("q1 q2", "d1 d2 d3", return_tensors="pt")
    assert inputs["token_type_ids"].tolist() == [[0] * 4 + [1] * 5]
    plain = bert(inputs["input_ids"]).logits.item()
    assert reranker.score([("q1 q2", "d1 d2 d3")], progress=False)[0] == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize("text", ["d1 \ud83d", "\udc00"])
def test_half_a_character(text, tmp_path):
    """Python's strings may hold lone surrogates; tokenizers take none and do not say why."""
    save(tmp_path, BertConfig(**SMALL, num_labels=1), word_tokenizer())
    reranker, reader = AT_THE_DOORS["rank"](tmp_path), AT_THE_DOORS["read"](tmp_path)
    for fail in (
        lambda: reranker.rank("q1", ["d1", text]),
        lambda: reranker.rank(text, ["d1"]),
        lambda: reader.answer([Question("1", "q1", text, [])]),
    ):
        with pytest.raises(ValueError, match=r"ud.*: the text has a lone surrogate .*; remove it"):
            fail()


def test_questions_with_the_same_id(tmp_path):
    """One of the two answers would be lost."""
    save(tmp_path, BertConfig(**SMALL, num_labels=1), word_tokenizer())
    with pytest.raises(ValueError, match="two questions have the same id"):
        AT_THE_DOORS["read"](tmp_path).answer([Question("1", "q1", "d1", []), Question("1", "q1", "d2", [])])


@pytest.mark.parametrize("config_class", [RobertaConfig, Data2VecTextConfig, XmodConfig])
def test_positions_are_counted_by_the_model(config_class, tmp_path):
    """A pair of the longest length is computed; one more token would have no position."""
    extra = {"languages": ["en_XX"], "default_language": "en_XX"} if config_class is XmodConfig else {}
    save(tmp_path, config_class(**ROBERTA, num_labels=1, **extra), word_tokenizer(False))
    reranker = Reranker.from_pretrained(tmp_path, max_query_length=10)
    assert max_positions(reranker.model) == reranker.encoder.max_length == 64
    assert reranker.score([("q1", "d1 " * 200)], progress=False) and reranker.counts["documents_cut"] == 1
    with pytest.raises((IndexError, RuntimeError)):
        reranker.model(torch.full((1, 65), 3))
    with pytest.raises(ValueError, match=r"max_length \(65\) is more than the model's 64 positions"):
        Reranker.from_pretrained(tmp_path, max_length=65)


def test_models_without_a_longest_input(tmp_path):
    sizes = {"vocab_size": SMALL["vocab_size"], "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 16}
    save(tmp_path, XLNetConfig(**sizes, num_labels=1), word_tokenizer(False))
    with pytest.raises(ValueError, match="neither this xlnet nor its tokenizer has a longest input: pass max_length"):
        Reranker.from_pretrained(tmp_path)
    assert Reranker.from_pretrained(tmp_path, max_length=200).rank("q1", ["d1"])


# ---------------------------------------------------------------------------------------------------------------------
# Checkpoints that are refused
# ---------------------------------------------------------------------------------------------------------------------


@each_door
def test_tokenizers_that_are_refused(door, tmp_path):
    config = BertConfig(**SMALL, num_labels=1)
    save(tmp_path, config, word_tokenizer(words=[*WORDS, "new", "newer"]))
    with pytest.raises(
        ValueError, match=r"the tokenizer has 87 tokens, but the bert has embeddings for 85: it is not"
    ):
        AT_THE_DOORS[door](tmp_path)
    word_tokenizer(pad_token=None).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="the tokenizer of the bert has no padding token: name one of its tokens"):
        AT_THE_DOORS[door](tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    AT_THE_DOORS[door](tmp_path)
    path = tmp_path / "tokenizer.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["model"]["type"] = "Later"
    path.write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(ValueError, match=r"the tokenizer of .* does not load \(its tokenizer.json may be of a newer"):
        AT_THE_DOORS[door](tmp_path)


@each_door
def test_models_that_are_refused(door, tmp_path):
    sizes = {"vocab_size": SMALL["vocab_size"], "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    save(tmp_path / "t5", T5Config(**sizes, decoder_start_token_id=0), word_tokenizer(), auto_class=AutoModel)
    with pytest.raises(ValueError, match=r"t5 is an encoder-decoder \(t5\): an encoder is needed"):
        AT_THE_DOORS[door](tmp_path / "t5")
    save(tmp_path / "canine", CanineConfig(**SMALL, num_hash_buckets=8), word_tokenizer(), auto_class=AutoModel)
    with pytest.raises(ValueError, match="a canine has no embeddings of a tokenizer's tokens"):
        AT_THE_DOORS[door](tmp_path / "canine")
    sizes = {name: value for name, value in SMALL.items() if name != "num_attention_heads"}
    save(tmp_path / "fnet", FNetConfig(**sizes), word_tokenizer(), auto_class=AutoModel)
    with pytest.raises(ValueError, match="what a fnet computes for a text changes with the padding beside it"):
        AT_THE_DOORS[door](tmp_path / "fnet")
    if door == "rank":
        sizes = {"vocab_size": SMALL["vocab_size"], "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 66}
        ids = {"bos_token_id": 0, "eos_token_id": 2}
        save(tmp_path / "gpt2", GPT2Config(**sizes, **ids, num_labels=1), word_tokenizer(False))
        with pytest.raises(ValueError, match=r"gpt2 is a decoder \(gpt2\)"):
            AT_THE_DOORS[door](tmp_path / "gpt2")


XLNET = {"vocab_size": SMALL["vocab_size"], "d_model": 16, "d_inner": 16, "n_layer": 1, "n_head": 2}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("config", [BertConfig(**SMALL, num_labels=1), XLNetConfig(**XLNET, num_labels=1)])
def test_padding_does_not_change_scores(config, side, tmp_path):
    """A BERT counts positions from the first column, an XLNet scores by the last one."""
    types = config.model_type == "bert"
    save(tmp_path, config, word_tokenizer(types, padding_side=side))
    reranker = AT_THE_DOORS["rank"](tmp_path)
    assert reranker.encoder.tokenizer.padding_side == ("right" if types else "left")
    pairs = [("q1", "d1 d2 d3 d4"), ("q2", "d5")]
    together = reranker.score(pairs, progress=False)
    assert together == pytest.approx([reranker.score([pair], progress=False)[0] for pair in pairs], abs=1e-6)


@each_door
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("left", [0, 200])
def test_damaged_weights(name, left, door, tmp_path):
    model = save(tmp_path, BertConfig(**SMALL, num_labels=1), word_tokenizer())
    if name == "pytorch_model.bin":
        (tmp_path / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:left])
    with pytest.raises(ValueError, match=rf"the weights of {tmp_path} cannot be read, a file may be cut"):
        AT_THE_DOORS[door](tmp_path)


@each_door
def test_impossible_configurations(door, tmp_path):
    save(tmp_path, BertConfig(**SMALL, num_labels=1), word_tokenizer())
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(stored | {"hidden_size": "big"}), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{tmp_path}: .*'hidden_size'.* in its config.json"):
        AT_THE_DOORS[door](tmp_path)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match=r"config.json is no configuration, but a list"):
        AT_THE_DOORS[door](tmp_path)


def test_labels_that_are_not_relevance(tmp_path):
    names = {0: "contradiction", 1: "entailment", 2: "neutral"}
    save(tmp_path / "nli", BertConfig(**SMALL, id2label=names), word_tokenizer())
    with pytest.raises(
        ValueError, match=r"3 labels \(contradiction, entailment, neutral\), and none of them is relevance"
    ):
        Reranker.from_pretrained(tmp_path / "nli", max_query_length=10)
    # The advice of the message works:
    AutoModel.from_pretrained(tmp_path / "nli").save_pretrained(tmp_path / "encoder")
    word_tokenizer().save_pretrained(tmp_path / "encoder")
    reranker = AT_THE_DOORS["rank"](tmp_path / "encoder")
    assert reranker.model.config.num_labels == 1
    two = BertForSequenceClassification(BertConfig(**SMALL, num_labels=2)).eval()
    reranker = Reranker(two, word_tokenizer(), 40, 10)
    (score,) = reranker.score([("q1", "d1")], progress=False)
    with torch.no_grad():
        assert score == pytest.approx(two(**word_tokenizer()("q1", "d1", return_tensors="pt")).logits[0, 1].item())


def test_a_head_is_drawn_only_if_it_is_asked_for(tmp_path, caplog):
    save(tmp_path, BertConfig(**SMALL, num_labels=3), word_tokenizer(), auto_class=AutoModel)
    for door, task in ((Reranker, "rank"), (Reader, "answer questions")):
        with pytest.raises(ValueError, match=f"cannot {task}, it lacks .*weight: finetune it first"):
            door.from_pretrained(tmp_path)
    rankers = [AT_THE_DOORS["rank"](tmp_path).model for _ in range(2)]
    assert torch.equal(rankers[0].classifier.weight, rankers[1].classifier.weight)
    assert rankers[0].classifier.weight.shape == (1, 16)
    assert AT_THE_DOORS["read"](tmp_path).model.qa_outputs.weight.shape == (2, 16)
    assert "has no head to rank: a new one is random" in caplog.text and "no head to answer questions" in caplog.text


def test_truncation_in_a_file_is_not_kept(tmp_path):
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(5)
    tokenizer.backend_tokenizer.enable_padding()
    save(tmp_path, BertConfig(**SMALL, num_labels=1), tokenizer)
    assert json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["truncation"]
    reranker = Reranker.from_pretrained(tmp_path, max_length=40, max_query_length=10)
    reranker.rank("q1", ["d1 " * 90])
    reranker.encoder.tokenizer.save_pretrained(tmp_path / "saved")
    stored = json.loads((tmp_path / "saved/tokenizer.json").read_text(encoding="utf-8"))
    assert stored["truncation"] is None and stored["padding"] is None


# ---------------------------------------------------------------------------------------------------------------------
# Threads
# ---------------------------------------------------------------------------------------------------------------------


def long_texts(seed: int, number: int) -> list[str]:
    return texts(seed, number, 80)


@pytest.fixture(scope="module")
def shared_parts():
    torch.manual_seed(0)
    tokenizer = train_tokenizer("unigram")
    config = BertLongConfig(**SMALL | {"vocab_size": len(tokenizer)}, num_labels=1, attention_window=8)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A </s>",
        "<s> $A </s> </s>:1 $B:1 </s>:1",
        [(name, tokenizer.convert_tokens_to_ids(name)) for name in ("<s>", "</s>")],
    )
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return config, tokenizer


@pytest.mark.parametrize("long_documents", ["truncate", "maxp"])
def test_threads_share_a_reranker(long_documents, shared_parts):
    config, tokenizer = shared_parts
    model = BertLongForSequenceClassification(config).eval()
    reranker = Reranker(model, tokenizer, 60, 20, long_documents=long_documents)
    work = [list(zip(texts(seed, 10, 4), long_texts(seed + 50, 10))) for seed in range(24)]
    expected = [reranker.score(pairs, progress=False) for pairs in work]

    def score(pairs):
        # The tokenizer itself is used as well, as a first stage may.
        tokenizer(pairs[0][0], truncation=True, max_length=3, padding="max_length")
        return reranker.score(pairs, progress=False)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(score, work)) == expected


def test_threads_share_encoders(shared_parts):
    config, tokenizer = shared_parts
    encoder = PairEncoder(tokenizer, 40, 10)
    work = [(texts(seed, 40, 9), long_texts(seed, 40)) for seed in range(60)]
    expected = [dict(encoder(*pairs)) for pairs in work]
    assert all(max(map(len, rows["input_ids"])) == 40 for rows in expected)
    with ThreadPoolExecutor(8) as pool:
        assert [dict(rows) for rows in pool.map(lambda pairs: encoder(*pairs), work)] == expected

    reader = Reader(AutoModelForQuestionAnswering.from_config(config).eval(), tokenizer, **LENGTHS)
    asked = [[Question(str(i), *pair, []) for i, pair in enumerate(zip(*pairs))][:4] for pairs in work[:16]]
    expected = [reader.answer(questions, progress=False) for questions in asked]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda questions: reader.answer(questions, progress=False), asked)) == expected


def test_an_encoder_can_be_pickled():
    """Processes that load data get a pickled encoder: special tokens in a text must still be text."""
    encoder = PairEncoder(word_tokenizer(), 40, 10)
    again = pickle.loads(pickle.dumps(encoder))
    pairs = ["q1 </s> q2"], ["<s> d1 </s>"]
    assert dict(again(*pairs)) == dict(encoder(*pairs))
    assert encoder(*pairs)["input_ids"][0].count(2) == 3


# ---------------------------------------------------------------------------------------------------------------------
# Passages
# ---------------------------------------------------------------------------------------------------------------------


def test_no_passage_is_longer_than_its_room(shared_parts):
    """Sentencepiece gives other tokens for a cut text, so passages are made of the whole document's tokens."""
    config, tokenizer = shared_parts
    reranker = Reranker(BertLongForSequenceClassification(config).eval(), tokenizer, 40, 20, long_documents="maxp")
    seen = []
    reranker.model.register_forward_pre_hook(lambda _, args, inputs: seen.append(inputs), with_kwargs=True)
    query = " ".join(texts(3, 4, 9)) * 4
    documents = long_texts(1, 80)
    reranker.score([(query, document) for document in documents], progress=False)
    rows = [
        ids[(types == 1) & (mask == 1)][1:-1].tolist()
        for batch in seen
        for ids, types, mask in zip(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
    ]
    assert reranker.counts["passages"] == len(rows) > 150 and reranker.counts["documents_cut"] == 0
    room = reranker.encoder.room
    passages = []
    for document in documents:
        ids = tokenizer(document, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        step = room - room // 2
        passages += [ids[i : i + room] for i in range(0, max(1, len(ids) - room + step), step)]
    assert sorted(rows) == sorted(passages) and max(map(len, rows)) == room


def test_two_2021_labels_still_open(tmp_path):
    """The conversion of 2021 checkpoints writes two labels."""
    torch.manual_seed(0)
    model = BertLongForXLRetrieval(BertLongConfig(**SMALL, num_labels=2, attention_window=8)).eval()
    model.save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    (score,) = Reranker.from_pretrained(tmp_path, max_query_length=10).score([("q1", "d1")], progress=False)
    with torch.no_grad():
        logits = model(**word_tokenizer()("q1", "d1", return_tensors="pt")).relevance_logits
    assert score == pytest.approx(logits[0, 1].item(), abs=1e-6)
