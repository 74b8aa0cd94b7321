"""run_pretraining.py in this process: output folders that are finished, incomplete, or of another command."""

import json

import pytest

import run_pretraining
from modeling_clir.data import sections

from .helpers import QUIET, SHORT


FLAGS = (*QUIET, *SHORT, "--do_train", "--do_eval", "--qlm_pairs", "en-de", "--max_pairs", "32",
         "--max_eval_pairs", "4", "--per_device_train_batch_size", "8", "--learning_rate", "1e-3",
         "--max_position_embeddings", "128",
         "--attention_window", "16", "--max_steps", "6", "--save_strategy", "steps", "--save_steps", "2",
         "--eval_strategy", "steps", "--eval_steps", "3")  # fmt: skip
RESUME = ("--resume_from_checkpoint", "true")


@pytest.fixture
def pretrain(call, tiny_bert, sample_corpus, tmp_path):
    where = ("--model_name_or_path", tiny_bert, "--corpus", sample_corpus, "--output_dir", tmp_path / "out")
    return lambda *flags: call(run_pretraining, ["run_pretraining.py", *map(str, (*where, *FLAGS, *flags))])


def weights(folder) -> tuple[bytes, int]:
    path = folder / "model.safetensors"
    return path.read_bytes(), path.stat().st_mtime_ns


def evaluation(folder) -> dict:
    metrics = json.loads((folder / "eval_results.json").read_text(encoding="utf-8"))
    return {name: value for name, value in metrics.items() if name.startswith("eval_qlm")}


def card_of(folder) -> list[str]:
    """Returns the lines of the card without the time, which a resumed run does not know."""
    lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("- Time:")]


def test_a_finished_pretraining_stays_as_it_is(pretrain, tmp_path, caplog, capsys):
    output = tmp_path / "out"
    pretrain()
    model, measured, card = weights(output), evaluation(output), card_of(output)
    checkpoints = sorted(path.name for path in output.glob("checkpoint-*"))
    assert (
        checkpoints == ["checkpoint-2", "checkpoint-4", "checkpoint-6"] and "eval_qlm_loss" in capsys.readouterr().out
    )
    caplog.set_level("INFO")
    for flags in (RESUME, (), (*RESUME, "--logging_steps", "1")):
        caplog.clear()
        pretrain(*flags)
        assert f"{output} is finished" in caplog.text and not capsys.readouterr().out
        assert weights(output) == model
        assert sorted(path.name for path in output.glob("checkpoint-*")) == checkpoints
    with pytest.raises(ValueError, match=r"holds results of --max_steps 6 \(now 8\): pass the same options to go on"):
        pretrain("--max_steps", "8")
    for changed, named in {
        ("--max_steps", "8", "--seed", "7"): "--max_steps 6 .now 8., --seed 42 .now 7.",
        ("--mask_probability", "0.5"): "--mask_probability 0.3 .now 0.5.",
        ("--rr_weight", "2", "--adam_beta1", "0.8"): "--adam_beta1 0.9 .now 0.8., --rr_weight 1.0 .now 2.0.",
    }.items():
        for flags in (RESUME, ()):
            with pytest.raises(ValueError, match=f"holds results of {named}: pass the same options to go on"):
                pretrain(*changed, *flags)
    with pytest.raises(ValueError, match=r"holds results of run_pretraining\.py --do_train: pass another"):
        pretrain("--do_train", "false")

    # Killed before evaluation and card: the same ones are made, and nothing else is touched.
    (output / "README.md").unlink()
    (output / "eval_results.json").unlink()
    pretrain(*RESUME)
    assert evaluation(output) == pytest.approx(measured, abs=1e-6) and weights(output) == model
    assert card_of(output) == card

    # Killed after the last checkpoint, before the model was saved
    (output / "trainer_state.json").unlink()
    (output / "model.safetensors").unlink()
    for state in output.glob("checkpoint-*/trainer_state.json"):
        (state.parent / "manifest.json").unlink()  # as an older version, and nothing was logged yet
        state.write_text(
            json.dumps(json.loads(state.read_text(encoding="utf-8")) | {"log_history": []}), encoding="utf-8"
        )
    pretrain(*RESUME)
    assert weights(output)[0] == model[0] and evaluation(output) == pytest.approx(measured, abs=1e-6)

    # Killed while a checkpoint was written: the last complete checkpoint gives the same results.
    (output / "trainer_state.json").unlink()
    for step in (4, 6):
        (output / f"checkpoint-{step}/trainer_state.json").write_text('{"epoch": 1', encoding="utf-8")
    caplog.clear()
    pretrain(*RESUME)
    assert caplog.text.count("is passed over and renamed") == 2 and weights(output)[0] == model[0]
    state = json.loads((output / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["global_step"] == 6 and len([r for r in state["log_history"] if "eval_qlm_loss" in r]) == 3

    # A longer training continues at the end of the shorter training.
    pretrain("--max_steps", "8", *RESUME)
    assert "was trained with --max_steps 6 (now 8): goes on with the new options" in caplog.text
    state = json.loads((output / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["global_step"] == 8 and weights(output) != model


def test_evaluating_alone_reads_no_training_pairs(pretrain, tmp_path, monkeypatch):
    splits = []

    class Spy(sections.PretrainingDataset):
        def __init__(self, *args, split="train", **options):
            splits.append(split)
            super().__init__(*args, split=split, **options)

    monkeypatch.setattr(sections, "PretrainingDataset", Spy)
    pretrain("--do_train", "false")
    assert splits == ["validation"] and "eval_qlm_loss" in evaluation(tmp_path / "out")
