"""Each option of TrainingArguments works in the trainers, or is refused before anything is loaded."""

import shutil
from dataclasses import MISSING, fields

import pytest
import torch
from transformers import BertConfig, BertForQuestionAnswering, TrainingArguments

from modeling_clir import BertForXLRetrieval
from modeling_clir.convert import bert_to_bertlong
from modeling_clir.data.collators import PretrainingCollator
from modeling_clir.data.collections import assign_folds
from modeling_clir.data.pairs import PairEncoder
from modeling_clir.data.questions import QuestionSet
from modeling_clir.data.sections import PretrainingDataset
from modeling_clir.data.windows import TrainingWindows
from modeling_clir.reader import Reader
from modeling_clir.training.answering import freeze, train_reader
from modeling_clir.training.layers import finetune_last_layers
from modeling_clir.training.options import OPTIONS, RUNNERS, check_options, choose_metric, table
from modeling_clir.training.pretraining import PretrainingTrainer
from modeling_clir.training.ranking import finetune
from modeling_clir.training.resuming import train_to_the_end
from modeling_clir.training.training_arguments import XLRetrievalTrainingArguments

from ..conftest import REPOSITORY
from .helpers import arguments, collection, corpus_of_words, fold_of, tiny_reranker
from .test_answering import QUESTIONS


SOME_VERSIONS = {"activation_checkpointing", "activation_checkpointing_kwargs"}  # not in 5.17
PAIRS = {"qlm": ["en-de"], "rr": ["en-de"]}


def train(tokenizer, folder, long=True, resume=None, **options):
    """Pretrains a tiny model. Returns its trainer."""
    corpus = folder.parent / "corpus"
    dataset = PretrainingDataset(str(corpus) if corpus.exists() else corpus_of_words(corpus, 9), PAIRS)
    collator = PretrainingCollator(PairEncoder(tokenizer, 20, 6))
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(vocab_size=len(tokenizer), initializer_range=0.3, num_labels=1, **sizes, **no_dropout)
    model = BertForXLRetrieval(config)
    if long:
        model = bert_to_bertlong(model, 64, 4)
    common = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "per_device_train_batch_size": 4}
    common |= {
        "max_steps": 4,
        "learning_rate": 0.1,
        "optim": "sgd",
        "save_strategy": "no",
        "output_dir": str(folder / "out"),
    }
    args = XLRetrievalTrainingArguments(**common | options)
    choose_metric(args, PAIRS)
    trainer = PretrainingTrainer(
        model=model, args=args, train_dataset=dataset, eval_dataset=dataset, data_collator=collator
    )
    train_to_the_end(trainer, resume)
    return trainer


def test_every_field_is_in_the_table():
    names = {field.name for field in fields(TrainingArguments)}
    assert names - set(OPTIONS) == set(), "say in modeling_clir/training/options.py what they do"
    assert set(OPTIONS) - names <= SOME_VERSIONS


def test_page_is_the_table():
    assert (REPOSITORY / "docs/options.md").read_text(encoding="utf-8") == table(), "make it anew: see its first line"


def other_value(name: str):
    """Returns a value of a field that is neither its default nor taken."""
    own = {
        "hub_strategy": "every_save",
        "eval_strategy": "steps",
        "save_strategy": "best",
        "train_sampling_strategy": "group_by_length",
    }
    if name in own:
        return own[name]
    field = next(field for field in fields(XLRetrievalTrainingArguments) if field.name == name)
    default = field.default if field.default is not MISSING else field.default_factory()
    if isinstance(default, bool):
        return not default
    return default + 3 if isinstance(default, (int, float)) else ["x"] if isinstance(default, list) else "x"


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.refused_by])
def test_refused(name, tmp_path):
    refusing = OPTIONS[name].refused_by
    value = other_value(name)
    for runner in RUNNERS:
        options = {"output_dir": str(tmp_path / "out"), "use_cpu": True, name: value}
        if name == "save_strategy":
            options |= {"eval_strategy": "epoch"}
        if runner in refusing:
            with pytest.raises(ValueError, match=rf"^--{name} .* is refused: \S+ "):
                check_options(XLRetrievalTrainingArguments(**options), runner)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optim": "lomo"}, "--optim lomo is refused: it needs a training loop of its own"),
        ({"optim": "paged_adamw_8bit"}, "--optim paged_adamw_8bit needs the package bitsandbytes"),
        ({"fp16": True}, "--fp16 is for GPUs: on a CPU use --bf16"),
        ({"report_to": "wandbb"}, "--report_to wandbb is unknown, or its package is not installed; usable here: "),
        ({"save_only_model": True, "resume_from_checkpoint": "true"}, "--save_only_model is refused with --resume"),
        ({"max_steps": 0}, "--max_steps must be at least 1, or -1 to count epochs, got 0"),
        ({"save_strategy": "best"}, "--load_best_model_at_end and --save_strategy best need --eval_strategy"),
        ({"load_best_model_at_end": True, "save_strategy": "no"}, "--load_best_model_at_end and --save_strategy"),
        (
            {"lr_scheduler_type": "cosine_with_min_lr"},
            "--lr_scheduler_type cosine_with_min_lr with .* None fails: .*min_lr",
        ),
        (
            {"lr_scheduler_type": "warmup_stable_decay"},
            "--lr_scheduler_type warmup_stable_decay with .* fails: .*num_decay",
        ),
        (
            {"lr_scheduler_type": "linear", "lr_scheduler_kwargs": {"power": 2}},
            "--lr_scheduler_type .* argument 'power'",
        ),
        ({"lr_scheduler_kwargs": {"min_lr": 0.1}}, "--lr_scheduler_kwargs is refused: constant_with_warmup has no"),
        ({"lr_scheduler_type": "constant", "warmup_steps": 5}, "--warmup_steps is refused: constant has no warm-up"),
        (
            {"optim": "adamw_torch", "optim_args": "eps=1e-2"},
            "--optim_args eps=1e-2 is refused, adamw_torch takes: none",
        ),
        ({"optim": "sgd", "optim_args": "momentum=0.9,weight_decay=1"}, "--optim_args weight_decay=1 is refused, sgd"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_values_that_cannot_work(options, message, tmp_path):
    with pytest.raises(ValueError, match=f"^{message}"):
        XLRetrievalTrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True, **options)


@pytest.mark.parametrize("name", ["ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP"])
def test_launchers_that_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.setenv(name, "true")
    with pytest.raises(ValueError, match=r"is refused.*: launch with --config_file recipes/accelerate/fsdp2\.yaml"):
        XLRetrievalTrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True)


def weights(trainer) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


# Options that change nothing but time and logs, to 1e-5, and options that change the weights.
SAME = [
    {"gradient_checkpointing": True},
    {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
    {"average_tokens_across_devices": False},
    {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    {"torch_empty_cache_steps": 1},
    {"torch_compile": True, "torch_compile_backend": "eager"},
    {"include_num_input_tokens_seen": "non_padding", "logging_steps": 1},
    {"skip_memory_metrics": False},
    {"debug": "underflow_overflow"},
    {"full_determinism": True},
    {"dataloader_num_workers": 1, "dataloader_persistent_workers": True, "dataloader_prefetch_factor": 1},
    {"logging_steps": 1, "logging_first_step": True, "logging_nan_inf_filter": False, "disable_tqdm": False},
    {"eval_strategy": "steps", "eval_steps": 2, "eval_on_start": True, "per_device_eval_batch_size": 3},
    {"save_strategy": "steps", "save_steps": 2, "save_only_model": True, "save_total_limit": 1},
    {"report_to": "tensorboard", "logging_steps": 1, "run_name": "a"},
]
DIFFERENT = [
    {"neftune_noise_alpha": 20.0},
    {"optim": "adamw_torch"},
    {"optim": "adafactor"},
    {"optim": "adagrad"},
    {"optim": "rmsprop"},
    {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-2}},
    {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 4}},
    {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"patience": 0, "factor": 0.1},
     "metric_for_best_model": "rr_accuracy", "greater_is_better": False, "eval_strategy": "steps", "eval_steps": 1},
    {"weight_decay": 0.5},
    {"optim": "adamw_torch_fused", "adam_beta1": 0.5, "adam_beta2": 0.9, "adam_epsilon": 1e-3},
    {"optim_args": "momentum=0.9"},
    {"max_grad_norm": 1e-5},
    {"warmup_steps": 3},
    {"bf16": True},
    {"seed": 1},
]  # fmt: skip


@pytest.fixture(scope="module")
def plain(tokenizer, tmp_path_factory):
    return weights(train(tokenizer, tmp_path_factory.mktemp("plain")))


@pytest.mark.slow
@pytest.mark.parametrize("options", SAME, ids=lambda options: "-".join(options))
def test_options_that_change_no_result(options, plain, tokenizer, tmp_path):
    torch.testing.assert_close(weights(train(tokenizer, tmp_path, **options)), plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", DIFFERENT, ids=lambda options: "-".join(options))
def test_options_that_change_the_result(options, plain, tokenizer, tmp_path):
    assert (weights(train(tokenizer, tmp_path, **options)) - plain).abs().max() > 1e-5


def test_tokens_seen_are_those_of_the_batches(tokenizer, tmp_path):
    trainer = train(tokenizer, tmp_path, include_num_input_tokens_seen="non_padding", logging_steps=1)
    log = [record for record in trainer.state.log_history if "loss" in record]
    assert log[-1]["num_input_tokens_seen"] == sum(record["tokens_per_batch"] for record in log)


@pytest.mark.parametrize("long", [True, False], ids=["bertlong", "bert"])
def test_noise_of_neftune(long, tokenizer, tmp_path):
    """The noise of the embeddings is uniform with the bound of the paper, in training alone."""
    trainer = train(tokenizer, tmp_path, long, neftune_noise_alpha=3.0)
    embeddings, ids = trainer.model.get_input_embeddings(), torch.arange(40)
    trainer.padded_length = 25
    noise = embeddings.train()(ids) - embeddings.weight[ids]
    bound = 3 / (25 * 16) ** 0.5
    assert 0.95 * bound < noise.abs().max() <= bound * 1.001
    assert torch.equal(embeddings.eval()(ids), embeddings.weight[ids])


@pytest.mark.parametrize("save", ["steps", "best"])
def test_the_best_model_by_the_default_metric(save, tokenizer, tmp_path):
    options = {"save_strategy": save, "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "max_steps": 6}
    trainer = train(tokenizer, tmp_path, load_best_model_at_end=True, learning_rate=1.0, **options)
    found = [record["eval_rr_mrr"] for record in trainer.state.log_history if "eval_rr_mrr" in record]
    assert trainer.args.metric_for_best_model == "rr_mrr" and len(found) == 6
    assert trainer.state.best_global_step == 1 + found.index(max(found))
    assert trainer.evaluate()["eval_rr_mrr"] == pytest.approx(max(found))


def test_a_best_model_between_two_checkpoints_is_saved(tokenizer, tmp_path):
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 6, "save_strategy": "steps", "max_steps": 6}
    options |= {"metric_for_best_model": "rr_accuracy", "greater_is_better": False, "save_total_limit": 1}
    trainer = train(tokenizer, tmp_path, load_best_model_at_end=True, **options)
    found = [record["eval_rr_accuracy"] for record in trainer.state.log_history if "eval_rr_accuracy" in record]
    assert found.index(min(found)) < 5, "the last one is the best"
    assert trainer.evaluate()["eval_rr_accuracy"] == min(found)


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("steps", [6, 8])
def test_the_best_model_of_a_folder_that_was_moved(steps, lost, tokenizer, tmp_path, caplog):
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "best", "max_steps": 6}
    options |= {"metric_for_best_model": "rr_accuracy", "greater_is_better": False, "load_best_model_at_end": True}
    first = train(tokenizer, tmp_path, **options)
    best = first.state.best_global_step
    assert best < 6, "the last one is the best"
    first._save_checkpoint(first.model, None)  # as at a signal
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    if lost:
        shutil.rmtree(moved / f"checkpoint-{best}")
    options |= {"output_dir": str(moved), "max_steps": steps, "learning_rate": 0.0}
    again = train(tokenizer, tmp_path, resume=moved / "checkpoint-6", **options)
    if lost:
        assert f"checkpoint-{best}, the best so far (rr_accuracy" in caplog.text
        assert again.state.best_global_step == {6: None, 8: 7}[steps]
    else:
        assert again.state.best_model_checkpoint == str(moved / f"checkpoint-{best}")
        assert torch.equal(weights(again), weights(first))


@pytest.mark.parametrize("greater", [True, False])
@pytest.mark.parametrize("name", ["reduce_lr_on_plateau", "greedy"])
def test_the_learning_rate_follows_a_metric_in_its_direction(name, greater, tokenizer, tmp_path, monkeypatch):
    values = iter(range(9))
    monkeypatch.setattr(PretrainingTrainer, "evaluate", lambda self, **_: {"eval_rr_mrr": float(next(values))})
    options = {"lr_scheduler_type": name, "lr_scheduler_kwargs": {"patience": 0, "factor": 0.5}, "eval_steps": 1}
    options |= {"metric_for_best_model": "rr_mrr", "greater_is_better": greater, "eval_strategy": "steps"}
    trainer = train(tokenizer, tmp_path, **options)
    rate = trainer.optimizer.param_groups[0]["lr"]
    assert (rate < 0.1) is not greater


def test_metrics_of_the_best_model(tmp_path):
    def chosen(pairs=PAIRS, **options):
        args = XLRetrievalTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **options)
        choose_metric(args, pairs)
        return args.metric_for_best_model, args.greater_is_better

    best = {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "epoch"}
    assert chosen() == (None, None) and chosen(**best) == ("rr_mrr", True)
    assert chosen(PAIRS | {"rr": []}, **best) == ("qlm_loss", False)
    assert chosen(metric_for_best_model="eval_qlm_loss_de-en", **best) == ("eval_qlm_loss_de-en", False)
    with pytest.raises(
        ValueError, match="--metric_for_best_model rr_map is not measured; choose one of rr_mrr, rr_acc"
    ):
        chosen(metric_for_best_model="rr_map", **best)


FINETUNED = [
    {"gradient_checkpointing": True},
    {"neftune_noise_alpha": 5.0},
    {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch"},
    {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "epoch"},
]


@pytest.mark.slow
@pytest.mark.parametrize("options", FINETUNED, ids=lambda options: next(iter(options)))
@pytest.mark.parametrize("runner", RUNNERS[1:])
def test_options_of_finetuning(runner, options, tokenizer, tmp_path):
    args = arguments(tmp_path / "out", num_train_epochs=2, **options)
    check_options(args, runner)
    torch.manual_seed(0)
    if runner == "run_clir.py":
        one = collection("en-de", 10)
        assign_folds([one], 0)
        reranker = tiny_reranker(tokenizer)
        finetune_last_layers(reranker.model, 1)
        best, history, _ = finetune(reranker, fold_of(one), [one], args)
        assert best.name == f"checkpoint-{2 * (1 + history.index(max(history)))}" and len(history) == 2
    else:
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
        model = BertForQuestionAnswering(BertConfig(vocab_size=len(tokenizer), **sizes))
        freeze(model, None, freeze_embeddings=True)
        reader = Reader(model, tokenizer, 20, 4, 4)
        windows = TrainingWindows(QUESTIONS, reader.encoder, progress=False)
        sets = [QuestionSet("set", "de", "en", QUESTIONS[:2])]
        assert len(train_reader(reader, windows, sets, args)) == 2
