"""
What each field of transformers' `TrainingArguments` does in the runners: the one place that refuses those that would do
nothing, or something else than they say. Prints the table of docs/options.md:

    python -m modeling_clir.training.options > docs/options.md
"""

import importlib.util
import os
from dataclasses import MISSING, dataclass, fields


RUNNERS = ("run_pretraining.py", "run_clir.py", "run_mlqa.py")
FINETUNING = RUNNERS[1:]  # evaluate and save after each epoch, and choose the best one


@dataclass(frozen=True)
class Option:
    """
    Attributes:
        names (`str`): fields, separated by spaces.
        note (`str`): what they do here, if that is not just what Transformers says.
        refused_by (`tuple[str, ...]`): runners that take the default only.
        instead (`str`): why these runners refuse another value, and what to do.
        taken (`tuple`): values that these runners take nevertheless, because they do that anyway.
    """

    names: str
    note: str = ""
    refused_by: tuple[str, ...] = ()
    instead: str = ""
    taken: tuple = ()


def works(names: str, note: str = "") -> Option:
    return Option(names, note)


def refused(names: str, instead: str, by: tuple[str, ...] = RUNNERS, note: str = "", taken: tuple = ()) -> Option:
    return Option(names, note, by, instead, taken)


LOADERS = "the batches are made here, not by accelerate: leave it out"
SUMS = "evaluation adds up sums and keeps no predictions: leave it out"
EACH_EPOCH = "this runner evaluates and saves after each epoch: leave it out"
SECTIONS = {
    "Task and folder": (
        works("output_dir", "belongs to one command"),
        works("do_train do_eval", "finetuning evaluates after each epoch without `--do_eval`, too"),
        refused("do_predict", "nothing is predicted: rank with run_clir.py, answer with run_mlqa.py --test_data"),
        refused(
            "resume_from_checkpoint",
            "the same command goes on by itself: leave it out",
            FINETUNING,
            "`true`, or a folder",
            ("true", "True"),
        ),
        works("seed", "order, negatives, masks and dropout follow from it"),
        works("full_determinism", "slower"),
        refused("data_seed", "the order of the data follows from --seed: set that"),
        works("use_cpu"),
        works("local_rank", "set by the launcher"),
    ),
    "Length, batch, optimizer": (
        works("num_train_epochs max_steps"),
        works("per_device_train_batch_size", "queries; `--max_tokens_per_batch` replaces it"),
        works("gradient_accumulation_steps", "gives the numbers of the larger batch"),
        works(
            "average_tokens_across_devices",
            "the loss is always the mean over all items of a step, on all processes: `false` changes nothing",
        ),
        works("learning_rate warmup_steps lr_scheduler_kwargs"),
        works(
            "lr_scheduler_type",
            "`reduce_lr_on_plateau` and `greedy` need `--eval_strategy` and follow `--metric_for_best_model`, which "
            "rises or falls as `--greater_is_better` says",
        ),
        works(
            "optim",
            "those of torch and Transformers, and those of bitsandbytes and others if installed; not LOMO, GaLore, "
            "Apollo and schedule-free ones, which need a training loop of their own",
        ),
        works("optim_args", "of `sgd`, `adagrad`, `rmsprop` and the optimizers of packages"),
        works("weight_decay adam_beta1 adam_beta2 adam_epsilon"),
        refused("optim_target_modules", "GaLore and Apollo are not made for these encoders: use --lora_rank"),
        works("max_grad_norm", "0 does not clip"),
        refused("label_smoothing_factor", "the losses here have no smoothed form: leave it out"),
        works("neftune_noise_alpha", "of the padded length, in BertLong's unpadded layout too"),
        refused(
            "auto_find_batch_size",
            "the result would depend on free memory: choose --max_tokens_per_batch and --gradient_accumulation_steps",
        ),
    ),
    "Precision, speed, memory": (
        works("bf16"),
        works("fp16", "refused on a CPU"),
        refused(
            "bf16_full_eval fp16_full_eval",
            "evaluation has the precision of training: use --bf16 (and --dtype of run_clir.py and run_mlqa.py)",
        ),
        works("tf32", "for GPUs that have it"),
        works("gradient_checkpointing gradient_checkpointing_kwargs"),
        works("activation_checkpointing activation_checkpointing_kwargs", "new names of `gradient_checkpointing`"),
        works(
            "torch_compile torch_compile_backend torch_compile_mode",
            "training only; BertLong's compiled graph computes padding and full attention, so compile encoders that "
            "are not converted",
        ),
        works("torch_empty_cache_steps"),
        refused("use_liger_kernel liger_kernel_config", "Liger has no kernels for these encoders: leave it out"),
        refused("use_cache", "encoders have no cache: leave it out"),
    ),
    "Evaluating and saving": (
        refused("eval_strategy", EACH_EPOCH, FINETUNING, taken=("epoch",)),
        refused("eval_steps eval_delay eval_on_start", EACH_EPOCH, FINETUNING),
        refused("save_strategy", EACH_EPOCH, FINETUNING, taken=("epoch",)),
        refused("save_steps save_total_limit", EACH_EPOCH, FINETUNING),
        refused(
            "per_device_eval_batch_size",
            "batches are made by tokens: use --max_tokens_per_batch",
            FINETUNING,
            "queries",
        ),
        works(
            "load_best_model_at_end",
            "needs `--eval_strategy`; each new best model is saved. Finetuning always takes the best epoch",
        ),
        refused(
            "metric_for_best_model greater_is_better",
            "run_clir.py chooses by development MAP, run_mlqa.py by F1 (--select): leave it out",
            FINETUNING,
            "default: `rr_mrr`, or `qlm_loss` without RR; any name that is logged after `eval_`",
        ),
        refused(
            "save_only_model",
            "a killed run could not go on: leave it out",
            FINETUNING,
            "training cannot go on from such a checkpoint, so not with `--resume_from_checkpoint`",
        ),
        refused("save_on_each_node", "the machines must share --output_dir: leave it out"),
        refused("enable_jit_checkpoint", "SIGTERM stops a run with a checkpoint anyway: leave it out"),
        refused("ignore_data_skip", "a resumed run goes on at its batch, at no cost: leave it out"),
        refused("restore_callback_states_from_checkpoint", "no callback here has a state: leave it out"),
        refused(
            "prediction_loss_only eval_do_concat_batches eval_use_gather_object eval_accumulation_steps "
            "include_for_metrics batch_eval_metrics",
            SUMS,
        ),
    ),
    "Data": (
        works("dataloader_num_workers dataloader_prefetch_factor dataloader_persistent_workers"),
        works("dataloader_multiprocessing_context"),
        works("dataloader_pin_memory", "with a GPU"),
        refused("dataloader_in_order", "the processes would train different tasks in one step: leave it out"),
        refused(
            "dataloader_drop_last",
            "no batch is incomplete: the last one of a language pair is filled up with its first examples",
        ),
        refused("accelerator_config", LOADERS),
        works("remove_unused_columns", "no column is removed"),
        refused("label_names", "the tasks know their labels: leave it out"),
        refused(
            "train_sampling_strategy length_column_name",
            "a step has one task and one language pair: --max_tokens_per_batch groups by length",
        ),
    ),
    "Processes": (
        refused(
            "ddp_find_unused_parameters",
            "a batch of one task does not use the other's head: leave it out",
            RUNNERS[:1],
            "run_mlqa.py uses all parameters, whatever it says",
            (True,),
        ),
        refused("ddp_static_graph", "the tasks have two graphs, and the number of tokens changes: leave it out"),
        works("ddp_bucket_cap_mb ddp_broadcast_buffers ddp_backend ddp_timeout"),
        refused("fsdp fsdp_config", "use accelerate launch --config_file recipes/accelerate/fsdp2.yaml"),
        refused("deepspeed", "use accelerate launch --config_file recipes/accelerate/fsdp2.yaml"),
        refused("parallelism_config", "these encoders are sharded by FSDP2 only: recipes/accelerate/fsdp2.yaml"),
    ),
    "Logs": (
        works("logging_strategy logging_steps logging_first_step logging_nan_inf_filter"),
        works("log_level log_level_replica log_on_each_node"),
        works("disable_tqdm", "while training; ranking and answering show a bar"),
        works("report_to", "refused if its package is missing"),
        works("run_name project trackio_space_id trackio_bucket_id trackio_static_space_id"),
        works("include_num_input_tokens_seen", "`all` counts padding, which BertLong does not compute"),
        works("skip_memory_metrics"),
        works("debug", "`underflow_overflow`"),
    ),
    "Hub": (
        works("push_to_hub", "the final model, its card and results in one commit, see [hub.md](hub.md)"),
        works("hub_model_id hub_token hub_private_repo hub_revision"),
        refused(
            "hub_strategy hub_always_push",
            "the Hub gets the final model only, because folds and epochs would replace each other: leave it out",
            FINETUNING,
            "default: `end`; others also upload while a pretraining goes on",
        ),
    ),
}
OPTIONS = {name: option for section in SECTIONS.values() for option in section for name in option.names.split()}

# Optimizers that need a training loop or a choice of modules of their own, and packages of others.
OWN_LOOP = ("lomo", "galore", "apollo", "schedule_free", "xla", "npu")
PACKAGES = {
    "bnb": "bitsandbytes", "paged": "bitsandbytes", "ademamix": "bitsandbytes", "lion": "bitsandbytes",
    "adamw_8bit": "bitsandbytes", "torch_4bit": "torchao", "torch_8bit": "torchao", "grokadamw": "grokadamw",
    "stable_adamw": "optimi", "anyprecision": "torchdistx",
}  # fmt: skip


# What optimizers of torch and Transformers read from --optim_args.
OPTIMIZER_ARGS = {
    "sgd": "momentum dampening nesterov", "adagrad": "lr_decay eps", "rmsprop": "momentum alpha eps centered",
    "adamw_torch": "", "adamw_torch_fused": "", "adafactor": "",
}  # fmt: skip


def check_options(args, runner: str | None = None):
    """
    Raises `ValueError` for an option that would do nothing or something else than it says.

    Args:
        args (`XLRetrievalTrainingArguments`): with the values as `given`.
        runner (`str`, *optional*): checks what this runner refuses; by default what all runners refuse.
    """
    for field in fields(args):
        option = OPTIONS.get(field.name)
        if option is None or not (runner in option.refused_by if runner else option.refused_by == RUNNERS):
            continue
        default = field.default if field.default is not MISSING else field.default_factory()
        value = args.given[field.name]
        if value not in (None, default, *option.taken):
            raise ValueError(f"--{field.name} {value} is refused: {option.instead}")
    if runner in FINETUNING and uses("ACCELERATE_USE_FSDP"):
        raise ValueError(f"FSDP is refused: {runner} trains on whole models; use recipes/accelerate/ddp.yaml")
    if runner is None:
        optimizer = str(getattr(args.given["optim"], "value", args.given["optim"]))
        check_optimizer(optimizer)
        check_optimizer_args(optimizer, args.given["optim_args"])
        check_launcher()
    if args.given["save_only_model"] and args.given["resume_from_checkpoint"]:
        raise ValueError(
            "--save_only_model is refused with --resume_from_checkpoint: checkpoints of the model alone cannot go on"
        )


def check_optimizer(name: str):
    if any(part in name for part in OWN_LOOP):
        raise ValueError(f"--optim {name} is refused: it needs a training loop of its own; adamw_torch_fused does not")
    package = next((package for part, package in PACKAGES.items() if part in name), None)
    if package is not None and importlib.util.find_spec(package) is None:
        raise ValueError(f"--optim {name} needs the package {package}: install it, or choose adamw_torch_fused")


def check_optimizer_args(name: str, options: str | None):
    """Refuses `--optim_args` that an optimizer of torch or Transformers does not read."""
    for option in options.split(",") if options and name in OPTIMIZER_ARGS else ():
        if option.partition("=")[0].strip() not in OPTIMIZER_ARGS[name].split():
            known = OPTIMIZER_ARGS[name] or "none; the options of Adam are --adam_beta1 and so on"
            raise ValueError(f"--optim_args {option} is refused, {name} takes: {known}")


def check_schedule(args):
    """Makes the schedule of the learning rate, for one parameter, to find options that it lacks or does not know."""
    name, options = args.lr_scheduler_type.value, args.lr_scheduler_kwargs
    if args.warmup_steps and name in ("constant", "reduce_lr_on_plateau", "greedy"):
        raise ValueError(f"--warmup_steps is refused: {name} has no warm-up, constant_with_warmup has one")
    if name in ("constant", "constant_with_warmup"):
        if options:
            raise ValueError(f"--lr_scheduler_kwargs is refused: {name} has no options, choose --lr_scheduler_type")
        return
    import torch
    from transformers.optimization import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    try:
        get_scheduler(name, optimizer, num_warmup_steps=1, num_training_steps=10, scheduler_specific_kwargs=options)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"--lr_scheduler_type {name} with --lr_scheduler_kwargs {options} fails: {error}") from None


def check_reports(names: list[str]):
    """Refuses trackers that Transformers does not know or whose package is missing."""
    if not names:
        return
    from transformers.integrations import get_available_reporting_integrations

    available = get_available_reporting_integrations()
    if missing := [name for name in names if name not in available]:
        raise ValueError(
            f"--report_to {missing[0]} is unknown, or its package is not installed; usable here: "
            f"{', '.join([*sorted(available), 'none'])}"
        )


def check_lora(args):
    if args.lora_rank is None:
        if args.lora_save != "merged":
            raise ValueError(f"--lora_save {args.lora_save} needs --lora_rank")
        return
    if args.lora_rank < 1:
        raise ValueError(f"--lora_rank must be at least 1, got {args.lora_rank}")
    if importlib.util.find_spec("peft") is None:
        raise ValueError("--lora_rank needs the package peft: pip install 'modeling-clir[lora]'")
    if uses("ACCELERATE_USE_FSDP"):
        raise ValueError("--lora_rank is refused with FSDP: use recipes/accelerate/ddp.yaml")


def check_launcher():
    """Refuses what `accelerate launch` asks for in the environment."""
    if uses("ACCELERATE_USE_DEEPSPEED"):
        raise ValueError("DeepSpeed is refused: launch with --config_file recipes/accelerate/fsdp2.yaml")
    wanted = {
        "FSDP_VERSION": "2",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    }
    for name, value in wanted.items() if uses("ACCELERATE_USE_FSDP") else ():
        if (found := os.environ.get(name, "unset")).lower() != value.lower():
            raise ValueError(
                f"{name} {found} is refused, it must be {value}: launch with --config_file recipes/accelerate/fsdp2.yaml"
            )


def choose_metric(args, pairs: dict[str, list[str]]):
    """
    Chooses the metric of the best model of a pretraining if one is asked for without a name: `rr_mrr`, or `qlm_loss`
    without RR. Raises `ValueError` for a metric that evaluation does not give.

    Args:
        args (`XLRetrievalTrainingArguments`): changed in place.
        pairs (`dict[str, list[str]]`): task to its language pairs.
    """
    names = []
    for task, measures in (("rr", ("mrr", "accuracy")), ("qlm", ("loss", "accuracy"))):
        for measure in measures if pairs[task] else ():
            both = [direction for pair in pairs[task] for direction in (pair, "-".join(reversed(pair.split("-"))))]
            names += [f"{task}_{measure}", *(f"{task}_{measure}_{direction}" for direction in both)]
    wanted = args.given["metric_for_best_model"]
    if wanted is not None and wanted.removeprefix("eval_") not in names:
        measured = ", ".join(name for name in names if name.count("_") == 1)
        raise ValueError(
            f"--metric_for_best_model {wanted} is not measured; choose one of {measured}, each also of one direction, "
            f"as {names[1]}"
        )
    if wanted is not None or args.metric_for_best_model is not None or args.save_strategy == "best":
        args.metric_for_best_model = wanted or names[0]
        if args.given["greater_is_better"] is None:
            args.greater_is_better = "loss" not in args.metric_for_best_model


def uses(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("1", "true", "yes")


def table() -> str:
    """Returns docs/options.md."""
    lines = [
        "# Options of TrainingArguments",
        "",
        "`python -m modeling_clir.training.options` writes this page. It lists each field of transformers'",
        "`TrainingArguments`, of all versions from 5.17 on. A refused one ends a runner with one line before anything is",
        "loaded; it takes the default only.",
    ]
    for title, options in SECTIONS.items():
        lines += [
            "",
            f"## {title}",
            "",
            "| option | pretraining | clir | mlqa | here |",
            "| --- | --- | --- | --- | --- |",
        ]
        for option in options:
            names = ", ".join(f"`{name}`" for name in option.names.split())
            cells = ["refused" if runner in option.refused_by else "works" for runner in RUNNERS]
            taken = ", ".join(f"`{value}`" for value in dict.fromkeys(str(one).lower() for one in option.taken))
            notes = [option.note, option.instead and f"refused: {option.instead}", taken and f"{taken} is taken"]
            lines.append(f"| {' | '.join([names, *cells])} | {'; '.join(note for note in notes if note)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")


__all__ = [
    "OPTIONS",
    "RUNNERS",
    "check_lora",
    "check_options",
    "check_reports",
    "check_schedule",
    "choose_metric",
    "table",
]
