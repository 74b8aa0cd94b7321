"""
Finetunes a reader for question answering in one language, and tests it in pairs of languages (Yu, Fei, Li 2021,
section 5). The epoch with the best development F1 of a pair answers the test questions of that pair.
"""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoModelForQuestionAnswering, PreTrainedModel, SchedulerType
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from ..configuration_bertlong import BertLongConfig
from ..data.questions import QuestionSet, parse_key
from ..data.windows import TrainingWindows
from ..evaluation.answering import answer_set, evaluate_development, markdown
from ..loading import load_pretrained
from ..model_card import DOCUMENTS, QUERY, describe_data, write_question_answering_card
from ..pipeline_bertlong import QuestionAnsweringPipeline
from ..reader import Reader
from .layers import finetune_last_layers
from .lora import merged
from .resuming import last_complete_checkpoint, train_to_the_end
from .trainer import BatchFacts, XLRetrievalTrainer, XLRetrievalTrainingArguments


def save_reader(reader: Reader, folder: Path):
    """
    Saves model, tokenizer, and the code and settings of `pipeline("question-answering", ..., trust_remote_code=True)`.
    """
    pipeline = QuestionAnsweringPipeline(reader.model, tokenizer=reader.encoder.tokenizer, device=reader.model.device)
    task = {"impl": QuestionAnsweringPipeline, "pt": (AutoModelForQuestionAnswering,)}
    pipeline._registered_impl = {"question-answering": task}
    with merged(reader.model):
        pipeline.save_pretrained(folder)


def freeze(model: PreTrainedModel, num_finetuned_layers: int | None, freeze_embeddings: bool):
    """
    Freezes, in place, all parameters but the last `num_finetuned_layers` layers and the head. Without this number, it
    freezes the embeddings if `freeze_embeddings`. Raises `ValueError` if the model has fewer layers.
    """
    if num_finetuned_layers is not None:
        finetune_last_layers(model, num_finetuned_layers)
    elif freeze_embeddings:
        getattr(model.base_model, "embeddings", model.get_input_embeddings()).requires_grad_(False)


class AnsweringTrainer(XLRetrievalTrainer):
    """
    Trains the model of a [`Reader`]. The loss of a window is the mean cross entropy of the first and the last token of
    the answer, over all tokens but padding (Devlin et al. 2019, BERT, section 4.2). After each epoch, `evaluate` gives
    F1 and EM of the development sets and saves the model in `epoch-{number}`. Saving a checkpoint removes the models
    of epochs that are best neither for a pair of languages nor for the mean over the pairs.

    Args:
        reader (`Reader`): its model is trained in place.
        development (`list[QuestionSet]`): may be empty.
        train_dataset (`TrainingWindows`): windows with the places of their answers.
        select (`str`, defaults to `"best"`): see [`chosen_epochs`].

    The other arguments are [`XLRetrievalTrainer`]'s, without `weights`.
    """

    counts = {}

    def __init__(self, reader: Reader, development: list[QuestionSet], train_dataset, select="best", **kwargs):
        self.reader, self.select = reader, select
        super().__init__(
            model=reader.model,
            eval_dataset=development,
            train_dataset=train_dataset,
            data_collator=train_dataset,
            processing_class=reader.encoder.tokenizer,
            weights={"qa": 1.0},
            **kwargs,
        )
        self.model_accepts_loss_kwargs = True  # `compute_loss` divides by the windows

    def example_lengths(self) -> dict[tuple[str, str], np.ndarray]:
        return self.train_dataset.lengths

    def task_loss(self, model, inputs, facts: BatchFacts):
        places = [inputs.pop(name) for name in ("start_positions", "end_positions")]
        outputs = model(**inputs)
        padding = inputs["attention_mask"] == 0
        logits = [outputs.start_logits, outputs.end_logits]
        losses = [F.cross_entropy(x.float().masked_fill(padding, -torch.inf), y) for x, y in zip(logits, places)]
        return sum(losses) / 2, outputs, len(facts.pairs)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        with self.compute_loss_context_manager():  # in the precision of training
            found = evaluate_development(self.reader, self.eval_dataset)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.report(metrics)
        if self.is_world_process_zero():
            epoch = math.ceil(self.state.epoch - 1e-6)
            folder = epoch_folder(Path(self.args.output_dir), epoch)
            save_reader(self.reader, folder)
            self.save_adapter(folder)
        return metrics

    def _save_checkpoint(self, *args, **kwargs):
        super()._save_checkpoint(*args, **kwargs)
        history = read_history(self.state.log_history)
        if history and self.is_world_process_zero():  # no history: a signal stops the first epoch
            chosen = chosen_epochs(history, self.select)
            keep_epochs(Path(self.args.output_dir), set(chosen.values()))


def read_history(log_history: list[dict], prefix: str = "eval") -> list[dict[str, float]]:
    """Reads the results of [`evaluate_development`] after each epoch from `trainer.state.log_history`."""
    return [
        {
            name.removeprefix(f"{prefix}_"): value
            for name, value in sorted(record.items())  # a log that was read from a file has this order
            if name.startswith(f"{prefix}_")
        }
        for record in log_history
        if f"{prefix}_threshold" in record
    ]


def chosen_epochs(history: list[dict[str, float]], select: str = "best") -> dict[str | None, int]:
    """
    Chooses the epoch, counted from 1, that answers the test questions of each pair of languages. It is the epoch with
    the best development F1 of the pair (the earliest if several are equal). The key `None` is for pairs without
    development questions: the epoch with the best mean over the pairs, or the last epoch if there are no development
    questions.

    Args:
        history (`list[dict[str, float]]`): for each epoch `F1_context-de.question-en` and so on, and their mean `F1`.
        select (`str`, defaults to `"best"`): `"best"`, or `"last"` for the last epoch for all pairs.
    """
    keys = [name for name in history[0] if name == "F1" or name.startswith("F1_")]
    chosen = {None: len(history)}
    for key in keys:
        values = [found[key] for found in history]
        best = 1 + values.index(max(values))
        chosen[key.removeprefix("F1_") if key != "F1" else None] = best if select == "best" else len(history)
    return chosen


def epoch_folder(output: Path, epoch: int) -> Path:
    return output / f"epoch-{epoch}"


def keep_epochs(output: Path, epochs: set[int]):
    """Removes the models of all other epochs."""
    for folder in output.glob("epoch-*"):
        if folder not in {epoch_folder(output, epoch) for epoch in epochs}:
            shutil.rmtree(folder, ignore_errors=True)


def train_reader(
    reader: Reader,
    train_dataset: TrainingWindows,
    development: list[QuestionSet],
    args: XLRetrievalTrainingArguments,
    select: str = "best",
    max_tokens_per_batch: int | None = None,
) -> list[dict[str, float]]:
    """
    Trains in `args.output_dir`, from the last checkpoint there if there is one. Leaves the models of the chosen epochs
    in `epoch-{number}`.

    Args:
        reader (`Reader`): its model is trained in place.
        train_dataset (`TrainingWindows`): windows with the places of their answers.
        development (`list[QuestionSet]`): may be empty.
        args (`XLRetrievalTrainingArguments`): training arguments; the strategies of evaluating and saving are not
            used.
        select (`str`, defaults to `"best"`): see [`chosen_epochs`].
        max_tokens_per_batch (`int`, *optional*): see [`XLRetrievalTrainer`].

    Returns:
        The results of [`evaluate_development`] after each epoch.
    """
    args.eval_strategy, args.save_strategy = IntervalStrategy.EPOCH, SaveStrategy.EPOCH
    args.load_best_model_at_end, args.save_total_limit, args.eval_on_start = False, 1, False
    args.ddp_find_unused_parameters = False
    args.metric_for_best_model, args.greater_is_better = None, True
    if args.lr_scheduler_type in ("reduce_lr_on_plateau", "greedy"):
        args.metric_for_best_model, args.save_total_limit = "F1", 2  # with 1 a `Trainer` keeps the best, not the last
    trainer = AnsweringTrainer(
        reader, development, train_dataset, select, args=args, max_tokens_per_batch=max_tokens_per_batch
    )
    checkpoint = last_complete_checkpoint(Path(args.output_dir), args)
    return read_history(train_to_the_end(trainer, checkpoint).log_history)


def answer_by_epochs(
    open_reader: Callable[[int], Reader],
    tests: list[QuestionSet],
    development: list[QuestionSet],
    history: list[dict[str, float]],
    select: str = "best",
    n_best: int = 20,
    output: Path | None = None,
) -> tuple[dict[str, list[dict]], list[dict[str, float]]]:
    """
    Answers the test questions of each pair of languages with the model of the epoch that [`chosen_epochs`] gives, and
    with that epoch's threshold of "no answer". Opens each model once; all processes share the work.

    Args:
        open_reader (`Callable[[int], Reader]`): opens the model of an epoch; epoch 0 is the model before training.
        tests (`list[QuestionSet]`): may be empty; no two have the same name and languages.
        development (`list[QuestionSet]`): tunes the threshold of epoch 0; not used if there is a `history`.
        history (`list[dict[str, float]]`): from [`train_reader`]; empty without training.
        select (`str`, defaults to `"best"`): see [`chosen_epochs`].
        n_best (`int`, defaults to 20): answers to write for each question.
        output (`Path`, *optional*): writes answers to `output/{set}`; writes nothing by default.

    Returns:
        For each test set the results of [`answer_set`] and the `epoch`, in the order of its pairs. Sets without gold
        answers are left out. Then the history; without training it holds the measures of epoch 0.
    """
    chosen = chosen_epochs(history, select) if history else {None: 0}
    epochs = [chosen.get(one.key, chosen[None]) for one in tests]
    found = {}
    for epoch in sorted(set(epochs)):
        reader = open_reader(epoch)
        history = history or [evaluate_development(reader, development)]
        threshold = history[max(epoch, 1) - 1]["threshold"]
        for one, answered_by in zip(tests, epochs):
            if answered_by == epoch:
                folder = output and output / one.name
                found[one.name, one.key] = answer_set(reader, one, threshold, n_best, folder) | {"epoch": epoch}
    results = {}
    for one in tests:
        if one.has_answers:
            results.setdefault(one.name, []).append(found[one.name, one.key])
    return results, history


def write_card(
    folder: Path,
    reader: Reader,
    results: dict[str, list[dict]],
    history: list[dict[str, float]],
    epoch: int,
    number_of_questions: int,
    options: object,
    args: XLRetrievalTrainingArguments,
    facts=None,
):
    """
    Writes `README.md` for the model in `folder`, with the output of its example.

    Args:
        folder (`Path`): folder of the model.
        reader (`Reader`): the model with its lengths.
        results (`dict[str, list[dict]]`): test set to the results of its pairs of languages, see [`answer_by_epochs`].
        history (`list[dict[str, float]]`): measures of the development sets after each epoch.
        epoch (`int`): epoch of the model.
        number_of_questions (`int`): questions that the model was trained on.
        options (`Arguments`): options of `run_mlqa.py`.
        args (`XLRetrievalTrainingArguments`): training arguments.
        facts (`RunFacts`, *optional*): facts of the run.
    """
    printed = None
    if facts is not None:
        model, tokenizer = load_pretrained(AutoModelForQuestionAnswering, folder, "answer questions", 2)
        pipeline = QuestionAnsweringPipeline(model, tokenizer=tokenizer)  # `reader` has the last epoch
        printed = pipeline(question=QUERY, context=DOCUMENTS[0])["answer"]
    batches = args.gradient_accumulation_steps * args.world_size
    batch = {"batch (windows)": args.per_device_train_batch_size * batches}
    if options.max_tokens_per_batch is not None:
        batch = {"batch (tokens)": options.max_tokens_per_batch * batches}
    pairs = [(result["context"], result["question"]) for of_set in results.values() for result in of_set]
    pairs += [parse_key(name.removeprefix("F1_")) for name in history[0] if name.startswith("F1_")]
    frozen = options.freeze_embeddings or options.num_finetuned_layers is not None
    layers = options.num_finetuned_layers
    write_question_answering_card(
        folder,
        name=folder.resolve().name,
        base_model=options.model_name_or_path,
        languages=sorted({language for pair in pairs for language in pair}),
        results=results,
        tables={name: markdown(of_set) for name, of_set in results.items()},
        data=f"{number_of_questions} questions of {', '.join(map(describe_data, options.train_data))}.",
        settings={
            "epochs": f"{args.num_train_epochs:g}" if args.max_steps < 0 else f"{args.max_steps} steps",
            **batch,
            "learning rate": f"{args.learning_rate:g}, {SchedulerType(args.lr_scheduler_type).value}",
            "embeddings": "frozen" if frozen else "trained",
            "layers": "all" if layers is None else f"the last {layers}",
            "longest window": f"{reader.encoder.max_length} tokens, {reader.encoder.doc_stride} shared with the next",
            "precision": args.precision,
            "seed": args.seed,
        },
        selection=f"These weights are those of epoch {epoch}"
        + (
            "; each pair of languages was tested with its best epoch on development questions."
            if options.select == "best" and options.dev_data
            else ", the last."
        ),
        max_length=reader.encoder.max_length,
        tags=["bertlong"] * (reader.model.config.model_type == BertLongConfig.model_type),
        datasets=options.train_data,
        test_data=options.test_data or [],
        printed=printed,
        facts=facts,
    )


__all__ = [
    "AnsweringTrainer",
    "answer_by_epochs",
    "chosen_epochs",
    "epoch_folder",
    "freeze",
    "keep_epochs",
    "save_reader",
    "train_reader",
    "write_card",
]
