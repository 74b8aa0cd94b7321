"""
Finetuning for question answering, after Yu, Fei, Li (2021), section 5: trained in one language, and for each pair of
languages the epoch with the best development F1 gives the test.
"""

import math
import shutil
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoModelForQuestionAnswering, PreTrainedModel, SchedulerType
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from ..data.questions import QuestionSet
from ..data.windows import TrainingWindows
from ..evaluation.answering import evaluate_development, markdown
from ..model_card import write_question_answering_card
from ..pipeline_bertlong import QuestionAnsweringPipeline
from ..reader import Reader
from .layers import finetune_last_layers
from .resuming import train_to_the_end
from .trainer import BatchFacts, XLRetrievalTrainer, XLRetrievalTrainingArguments


def save_reader(reader: Reader, folder: Path):
    """
    Saves model, tokenizer, and the code and settings of `pipeline("question-answering", ..., trust_remote_code=True)`.
    """
    pipeline = QuestionAnsweringPipeline(reader.model, tokenizer=reader.encoder.tokenizer, device=reader.model.device)
    task = {"impl": QuestionAnsweringPipeline, "pt": (AutoModelForQuestionAnswering,)}
    pipeline._registered_impl = {"question-answering": task}
    pipeline.save_pretrained(folder)


def freeze(model: PreTrainedModel, num_finetuned_layers: int | None, freeze_embeddings: bool):
    """
    Freezes, in place, all but the last layers and the head, or the embeddings. Raises `ValueError` for more layers than
    there are.
    """
    if num_finetuned_layers is not None:
        finetune_last_layers(model, num_finetuned_layers)
    elif freeze_embeddings:
        getattr(model.base_model, "embeddings", model.get_input_embeddings()).requires_grad_(False)


class AnsweringTrainer(XLRetrievalTrainer):
    """
    Trains the model of a [`Reader`]. The loss of a window is the mean cross entropy of the first and the last token of the
    answer, over all tokens but padding (Devlin et al. 2019, BERT, section 4.2). `evaluate`, after each epoch, gives
    F1 and EM of the development sets and saves the model; with the checkpoint, models are removed that are best for no
    pair of languages, and not for their mean.

    Args:
        reader (`Reader`).
        development (`list[QuestionSet]`): may be empty.
        train_dataset (`TrainingWindows`).
        select (`str`, defaults to `"best"`): `"best"` or `"last"` epoch.

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
        self.model_accepts_loss_kwargs = True  # a loss over a counted number of windows is not divided once more

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
            save_reader(self.reader, epoch_folder(Path(self.args.output_dir), epoch))
        return metrics

    def _save_checkpoint(self, *args, **kwargs):
        super()._save_checkpoint(*args, **kwargs)
        if self.is_world_process_zero():  # only now: what is killed before goes on from the checkpoint before
            chosen = chosen_epochs(read_history(self.state.log_history), self.select)
            keep_epochs(Path(self.args.output_dir), set(chosen.values()))


def read_history(log_history: list[dict], prefix: str = "eval") -> list[dict[str, float]]:
    """
    What [`evaluate_development`] found after each epoch, of `trainer.state.log_history`.
    """
    return [
        {
            name.removeprefix(f"{prefix}_"): value
            for name, value in sorted(record.items())  # as in a log that was read again
            if name.startswith(f"{prefix}_")
        }
        for record in log_history
        if f"{prefix}_threshold" in record
    ]


def chosen_epochs(history: list[dict[str, float]], select: str = "best") -> dict[str | None, int]:
    """
    Which epoch, from 1, gives the test of each pair of languages: the one with its best development F1, the earliest of
    equals. `None` is for pairs without development questions: the best mean over the pairs, or the last where there
    are none at all.

    Args:
        history (`list[dict[str, float]]`): after each epoch, `F1_context-de.question-en` and so on, and the mean, `F1`.
        select (`str`): `"best"`, or `"last"` for the last epoch throughout.
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
    """Removes the models of other epochs."""
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
    Trains in `args.output_dir`, going on from the last checkpoint there, and leaves the models of the chosen epochs in
    `epoch-{number}`.

    Args:
        reader (`Reader`): its model is trained in place.
        train_dataset (`TrainingWindows`).
        development (`list[QuestionSet]`): may be empty.
        args (`XLRetrievalTrainingArguments`): its strategies of evaluating and saving are not used.
        select (`str`, defaults to `"best"`): see [`chosen_epochs`].
        max_tokens_per_batch (`int`, *optional*): see [`XLRetrievalTrainer`].

    Returns:
        What [`evaluate_development`] found after each epoch.
    """
    args.eval_strategy, args.save_strategy = IntervalStrategy.EPOCH, SaveStrategy.EPOCH
    args.load_best_model_at_end, args.save_total_limit, args.eval_on_start = False, 1, False
    args.ddp_find_unused_parameters = False
    trainer = AnsweringTrainer(
        reader, development, train_dataset, select, args=args, max_tokens_per_batch=max_tokens_per_batch
    )
    return read_history(train_to_the_end(trainer, Path(args.output_dir)).log_history)


def write_card(
    folder: Path,
    reader: Reader,
    results: dict[str, list[dict]],
    epoch: int,
    number_of_questions: int,
    options: object,
    args: XLRetrievalTrainingArguments,
):
    """
    Writes `README.md` for the model in `folder`.

    Args:
        folder (`Path`): of the model.
        reader (`Reader`): with the lengths that were used.
        results (`dict[str, list[dict]]`): of each test set, those of its pairs of languages.
        epoch (`int`): which one the model is of.
        number_of_questions (`int`): trained on.
        options (`Arguments`): those of `run_mlqa.py`.
        args (`XLRetrievalTrainingArguments`).
    """
    batches = args.gradient_accumulation_steps * args.world_size
    batch = {"batch (windows)": args.per_device_train_batch_size * batches}
    if options.max_tokens_per_batch is not None:
        batch = {"batch (tokens)": options.max_tokens_per_batch * batches}
    frozen = options.freeze_embeddings or options.num_finetuned_layers is not None
    layers = options.num_finetuned_layers
    write_question_answering_card(
        folder,
        name=args.hub_model_id or folder.resolve().name,
        base_model=options.model_name_or_path,
        results=results,
        tables={name: markdown(of_set) for name, of_set in results.items()},
        data=f"{number_of_questions} questions of {', '.join(Path(name).name for name in options.train_data)}.",
        settings={
            "epochs": f"{args.num_train_epochs:g}" if args.max_steps < 0 else f"{args.max_steps} steps",
            **batch,
            "learning rate": f"{args.learning_rate:g}, {SchedulerType(args.lr_scheduler_type).value}",
            "embeddings": "frozen" if frozen else "trained",
            "layers": "all" if layers is None else f"the last {layers}",
            "longest window": f"{reader.encoder.max_length} tokens, {reader.encoder.doc_stride} of them in the next too",
            "precision": "bf16" if args.bf16 else "fp32",
            "seed": args.seed,
        },
        selection=f"These weights are of epoch {epoch}"
        + (
            "; each pair of languages was measured with the epoch that was best for it on development questions."
            if options.select == "best" and options.dev_data
            else ", the last."
        ),
        max_length=reader.encoder.max_length,
        tags=["bertlong"] * hasattr(reader.model.config, "attention_window"),
    )


__all__ = [
    "AnsweringTrainer",
    "chosen_epochs",
    "epoch_folder",
    "freeze",
    "keep_epochs",
    "save_reader",
    "train_reader",
    "write_card",
]
