"""`TrainingArguments` with the options of the two tasks. Loads torch, but neither the `Trainer` nor `datasets`."""

import json
from dataclasses import dataclass, field, fields
from typing import Literal

from transformers import TrainingArguments

from ..licenses import check_license
from ..losses import RANKING_LOSSES, TEACHER_LOSSES
from ..names import check_output_dir
from .options import check_lora, check_options, check_reports, check_schedule


@dataclass
class XLRetrievalTrainingArguments(TrainingArguments):
    """
    `TrainingArguments` with the options of the two tasks. Four defaults differ: `learning_rate` is 1e-5, constant
    after a warm-up; `max_grad_norm` is 5 (Yu, Fei, Li 2021); `per_device_eval_batch_size` is 32; `hub_strategy` is
    `"end"`, so that only the final model is uploaded.

    Args:
        rr_loss (`str`, defaults to `"pairwise"`): one of `RANKING_LOSSES`; see [`ranking_loss`].
        rr_margin (`float`, defaults to 1.0): margin of the margin loss.
        qlm_weight, rr_weight (`float`, default to 1.0): factors of the losses of QLM and RR.
        lora_rank (`int`, *optional*): trains adapters of this rank in place of the encoder, see [`add_lora`].
        lora_save (`str`, defaults to `"merged"`): `"adapter"` also keeps the adapters and heads alone, in `adapter/`.
        max_bad_batches (`int`, defaults to 0): see [`StepCheck`].
        allow_other_world_size (`bool`, defaults to `False`): see [`check_output`].
        license (`str`, *optional*): license of the model, for its card; that of the base model by default.
    """

    learning_rate: float = 1e-5
    lr_scheduler_type: str = "constant_with_warmup"
    max_grad_norm: float = 5.0
    per_device_eval_batch_size: int = 32
    hub_strategy: str = "end"
    rr_loss: str = field(
        default="pairwise",
        metadata={"help": f"one of {', '.join(RANKING_LOSSES)}; the last two need a teacher's scores"},
    )
    rr_margin: float = field(default=1.0, metadata={"help": "margin of the margin loss"})
    qlm_weight: float = field(default=1.0, metadata={"help": "factor of the QLM loss"})
    rr_weight: float = field(default=1.0, metadata={"help": "factor of the RR loss"})
    max_bad_batches: int = field(
        default=0,
        metadata={"help": "leave out this many optimizer steps without a finite loss; one more ends the run"},
    )
    allow_other_world_size: bool = field(
        default=False, metadata={"help": "go on with another number of processes or another batch than before"}
    )
    license: str | None = field(
        default=None, metadata={"help": "license of the model for its card, such as mit; defaults to the base model's"}
    )

    lora_rank: int | None = field(
        default=None, metadata={"help": "train adapters of this rank (LoRA, by peft) and the heads, not the encoder"}
    )
    lora_save: Literal["merged", "adapter"] = field(
        default="merged",
        metadata={"help": "adapter also keeps the adapters and heads alone, in adapter/ beside the merged model"},
    )

    def __post_init__(self):
        if self.output_dir is None:
            raise ValueError("the following arguments are required: --output_dir")
        check_output_dir(self.output_dir)
        self.given = {
            field.name: getattr(self, field.name) for field in fields(self)
        }  # `TrainingArguments` changes them
        check_options(self)
        check_license(self.license)
        try:
            super().__post_init__()
        except json.JSONDecodeError as error:
            raise ValueError(f"{error.doc!r} is not JSON: {error}") from None
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(self, name)}")
        if self.max_bad_batches < 0:
            raise ValueError(f"--max_bad_batches must be at least 0, got {self.max_bad_batches}")
        if self.num_train_epochs <= 0 and self.max_steps <= 0:
            raise ValueError(f"--num_train_epochs must be more than 0, got {self.num_train_epochs}")
        if self.max_steps < 1 and self.max_steps != -1:
            raise ValueError(f"--max_steps must be at least 1, or -1 to count epochs, got {self.max_steps}")
        if self.eval_strategy == "no" and (self.load_best_model_at_end or self.save_strategy == "best"):
            raise ValueError("--load_best_model_at_end and --save_strategy best need --eval_strategy steps or epoch")
        check_schedule(self)
        if self.rr_loss not in RANKING_LOSSES:
            raise ValueError(f"rr_loss must be one of {', '.join(RANKING_LOSSES)}, got {self.rr_loss!r}")
        check_lora(self)
        check_reports(self.report_to)
        if self.mixed_precision == "fp16" and self.device.type == "cpu":
            raise ValueError("--fp16 is for GPUs: on a CPU use --bf16")
        self.remove_unused_columns = False
        self.average_tokens_across_devices = True  # the loss is the mean over the items of all processes
        if self.ddp_find_unused_parameters is None:
            self.ddp_find_unused_parameters = True  # a batch of one task does not use the head of the other

    @property
    def needs_teacher(self) -> bool:
        """Whether the loss of RR trains on the scores of a teacher."""
        return self.rr_loss in TEACHER_LOSSES

    @property
    def precision(self) -> str:
        """The precision of training, for model cards."""
        return "fp32" if self.mixed_precision == "no" else self.mixed_precision  # also what a launcher sets


__all__ = ["XLRetrievalTrainingArguments"]
