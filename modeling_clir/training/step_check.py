"""Checks each optimizer step on all processes together: a signal stops a training, and bad batches are left out."""

import math

import torch
from accelerate.utils import gather_object
from transformers import Trainer, TrainerCallback
from transformers.utils import logging

from ..stopping import signals, stop


logger = logging.get_logger(__name__)

NOT_FINITE = 70  # exit code, EX_SOFTWARE of sysexits.h


class StepCheck(TrainerCallback):
    """
    Needs one reduction of two numbers for each optimizer step.

    - If a signal came to any process, all of them save a checkpoint before the next step, after what was due after this
      one (evaluation, log), and exit with code 75.
    - If the loss of any process, or the gradient, is not finite, no process makes the step: weights and optimizer stay
      as they were. The step counts, and the log names the examples. The `max_bad_batches + 1`st such step of a training
      ends it with code 70. With fp16 the loss scale is responsible for the gradient.
    """

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.losses: list[tuple[torch.Tensor, str]] = []  # loss and description of this step's batches
        self.gradient_norm = 0.0
        self.stopping, self.saved_step = False, None

    def on_train_begin(self, args, state, control, **kwargs):
        self.saved_step = state.global_step or None  # resumed

    def on_save(self, args, state, control, **kwargs):
        self.saved_step = state.global_step

    def on_step_begin(self, args, state, control, **kwargs):
        if self.stopping:
            if self.saved_step != state.global_step:
                self.trainer._save_checkpoint(self.trainer.model, trial=None)
            rest = "the same command goes on from there"
            if args.save_only_model:
                rest = "its checkpoint has the model alone (--save_only_model), so the training cannot go on"
            stop(f"stopped by a signal after step {state.global_step}; {rest}")

    def on_pre_optimizer_step(self, args, state, control, *, model, **kwargs):
        losses = [loss for loss, _ in self.losses]  # none if a subclass computes its own
        finite = torch.stack(losses).isfinite() if losses else torch.ones(0, dtype=torch.bool)
        scaled = self.trainer.accelerator.scaler is not None
        bad = not finite.all() or not (scaled or math.isfinite(self.gradient_norm))
        flags = torch.tensor([signals.noted is not None, bad], dtype=torch.int, device=args.device)
        stopping, bad = self.trainer.accelerator.reduce(flags, "sum").tolist()
        self.stopping = bool(stopping)
        if bad:
            model.zero_grad()  # an optimizer passes over parameters without a gradient
            self.leave_out(finite.tolist(), args, state)
        self.losses.clear()

    def leave_out(self, finite: list[bool], args, state):
        """Reports the batches that are not finite; all batches of the step if only the gradient is not."""
        found = [f"{text}: loss {loss:g}" for (loss, text), fine in zip(self.losses, finite) if not fine]
        found = gather_object(found) or gather_object([f"{text}: loss {loss:g}" for loss, text in self.losses])
        before = sum("bad_batches" in record for record in state.log_history)  # also of the run that is resumed
        what = f"step {state.global_step + 1} has no finite loss or gradient: {'; '.join(found)}"
        if before >= args.max_bad_batches:
            stop(
                f"error: {what}. This is more than --max_bad_batches {args.max_bad_batches}. The last checkpoint is "
                "kept. A lower --learning_rate often helps",
                NOT_FINITE,
            )
        self.trainer.log({"bad_batches": before + 1})
        if state.is_world_process_zero:
            logger.warning(f"{what}. It is left out, {before + 1} of --max_bad_batches {args.max_bad_batches}")


__all__ = ["NOT_FINITE", "StepCheck"]
