"""Checkpoints: each kind of damage is found, the last whole one is taken, and a full disk leaves it in place."""

import errno
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file

from modeling_clir.data.collections import assign_folds
from modeling_clir.training.checkpoints import CANNOT_SAVE, MANIFEST, damage, remove_old
from modeling_clir.training.ranking import finetune
from modeling_clir.training.resuming import checkpoint_to_resume, last_complete_checkpoint, remove_checkpoints

from .helpers import arguments, collection, fold_of, tiny_reranker


FILES = ["config.json", "model.safetensors", "optimizer.pt", "rng_state.pth", "scheduler.pt", "tokenizer.json",
         "trainer_state.json", "training_args.bin", MANIFEST]  # fmt: skip


def train(folder, tokenizer, **options):
    """Finetunes with dropout, for 3 epochs of 2 steps. Returns the folder of its checkpoints."""
    one = collection("en-de", 10)
    assign_folds([one], 0)
    finetune(tiny_reranker(tokenizer), fold_of(one), [one], arguments(folder, learning_rate=1e-2, **options))
    return folder / "fold-0"


@pytest.fixture(scope="module")
def trained(tokenizer, tmp_path_factory):
    return train(tmp_path_factory.mktemp("trained"), tokenizer)


@pytest.fixture
def checkpoint(trained, tmp_path):
    """A copy of the last checkpoint."""
    return shutil.copytree(trained / "checkpoint-6", tmp_path / "out/checkpoint-6")


def cut(path):
    os.truncate(path, path.stat().st_size - 5)


def test_a_checkpoint_is_there_with_all_its_files(trained):
    assert damage(trained / "checkpoint-6") is None
    found = {path.name for path in (trained / "checkpoint-6").iterdir()}
    assert set(FILES) <= found
    assert found - {MANIFEST} == set(json.loads((trained / f"checkpoint-6/{MANIFEST}").read_text())["size and crc32"])
    assert not list(trained.glob(".*"))


@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_is_found(name, checkpoint):
    cut(checkpoint / name)
    assert damage(checkpoint).startswith(name)
    if name == "tokenizer.json":
        (checkpoint / name).unlink()
        assert damage(checkpoint) == "tokenizer.json is missing"


def test_a_changed_bit_is_found(checkpoint):
    data = bytearray((checkpoint / "optimizer.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (checkpoint / "optimizer.pt").write_bytes(data)
    assert damage(checkpoint) == "optimizer.pt has changed"


@pytest.mark.parametrize("name", [name for name in FILES if name != MANIFEST])
def test_a_cut_file_of_an_older_version_is_found(name, checkpoint):
    (checkpoint / MANIFEST).unlink()
    assert damage(checkpoint) is None
    cut(checkpoint / name)
    assert name in damage(checkpoint)


def test_a_checkpoint_of_the_model_alone_is_refused(checkpoint):
    content = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
    del content["size and crc32"]["optimizer.pt"]
    (checkpoint / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    (checkpoint / "optimizer.pt").unlink()
    for wanted in ("true", str(checkpoint)):
        with pytest.raises(ValueError, match=r"checkpoint-6 has the model alone .*: begin another one with --model"):
            checkpoint_to_resume(arguments(checkpoint.parent, resume_from_checkpoint=wanted))
    assert checkpoint.is_dir()


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_part_that_was_not_copied_is_found(name, checkpoint):
    (checkpoint / MANIFEST).unlink()
    (checkpoint / name).unlink()
    assert damage(checkpoint) == f"it has no {name.split('.')[0]}"


def test_a_damaged_checkpoint_is_passed_over_and_kept(trained, checkpoint, caplog):
    output = checkpoint.parent
    shutil.copytree(trained / "checkpoint-6", output / "checkpoint-4")
    cut(checkpoint / "optimizer.pt")
    with pytest.raises(ValueError, match=r"checkpoint-6 is damaged: optimizer.pt has \d+ bytes in place of \d+"):
        checkpoint_to_resume(arguments(output, resume_from_checkpoint=str(checkpoint)))
    assert last_complete_checkpoint(output, arguments(output)) == output / "checkpoint-4"
    assert "checkpoint-6 is passed over and renamed to checkpoint-6.damaged: optimizer.pt has" in caplog.text
    assert {path.name for path in output.iterdir()} == {"checkpoint-4", "checkpoint-6.damaged"}


def test_a_run_goes_on_from_the_last_whole_checkpoint(trained, tokenizer, tmp_path):
    """As after a kill while the second checkpoint was written, in this version and in older ones."""
    folder = shutil.copytree(trained, tmp_path / "fold-0")
    best = json.loads((folder / "checkpoint-6/trainer_state.json").read_text())["best_global_step"]
    expected = load_file(folder / "checkpoint-6/model.safetensors")
    for path in folder.iterdir():
        shutil.rmtree(path)
    train(tmp_path, tokenizer, max_steps=2)
    state = folder / "checkpoint-2/trainer_state.json"
    shutil.copytree(folder / "checkpoint-2", folder / "checkpoint-4")
    cut(folder / "checkpoint-4/model.safetensors")
    shutil.copytree(folder / "checkpoint-2", folder / ".partial/checkpoint-4")
    assert state.is_file()
    train(tmp_path, tokenizer)
    found = load_file(folder / "checkpoint-6/model.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert json.loads((folder / "checkpoint-6/trainer_state.json").read_text())["best_global_step"] == best
    assert not (folder / ".partial").exists()


@pytest.mark.parametrize("lost", ["cut", "removed"])
def test_a_checkpoint_whose_best_one_is_lost_is_passed_over(lost, tokenizer, tmp_path, caplog):
    folder = train(tmp_path, tokenizer, seed=2)
    expected = load_file(folder / "checkpoint-6/model.safetensors")
    best = json.loads((folder / "checkpoint-6/trainer_state.json").read_text())["best_global_step"]
    best = folder / f"checkpoint-{best}"
    assert best.is_dir() and best.name != "checkpoint-6", "the last one is the best"
    if lost == "cut":
        cut(best / "model.safetensors")
    else:
        shutil.rmtree(best)
    train(tmp_path, tokenizer, seed=2)
    assert f"checkpoint-6 is passed over: {best.name}, the best so far, is not whole" in caplog.text
    assert damage(best) is None
    found = load_file(folder / "checkpoint-6/model.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_old_checkpoints_are_removed_but_never_the_one_just_written(tmp_path):
    for step in (2, 4, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
    remove_old(tmp_path, None, {tmp_path / "checkpoint-4"})
    assert len(list(tmp_path.iterdir())) == 3
    remove_old(tmp_path, 2, {tmp_path / "checkpoint-2"})  # written after a return to an earlier step
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-2", "checkpoint-10"}
    remove_old(tmp_path, 1, {tmp_path / "checkpoint-2"})
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-2"}


@pytest.mark.parametrize("remove", [lambda folder: remove_old(folder, 1, set()), remove_checkpoints])
def test_a_removal_that_is_killed_leaves_no_part_of_a_checkpoint(remove, checkpoint, monkeypatch):
    folder = checkpoint.parent
    shutil.copytree(checkpoint, folder / "checkpoint-4")

    def removal(path, **options):
        for file in [found for found in sorted(path.rglob("*")) if found.is_file()][:3]:
            file.unlink()
        if path.exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", removal)
    with pytest.raises(KeyboardInterrupt):
        remove(folder)
    assert all(damage(path) is None for path in folder.glob("checkpoint-*"))
    monkeypatch.undo()
    remove(folder)
    assert len(list(folder.iterdir())) <= 1


FULL = OSError(errno.ENOSPC, "No space left on device")
TORCH_FULL = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")


@pytest.mark.parametrize("error", [FULL, TORCH_FULL], ids=["system", "torch"])
def test_a_full_disk_keeps_the_last_whole_checkpoint(error, tokenizer, tmp_path, monkeypatch, capsys):
    save = torch.save

    def save_until_full(content, path, **options):
        if "checkpoint-4" in str(path) and "optimizer" in str(path):
            raise error
        save(content, path, **options)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(torch, "save", save_until_full)
        train(tmp_path, tokenizer)
    assert stopped.value.code == CANNOT_SAVE == 74
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(lines) == 1 and "checkpoint-4 cannot be written: " in lines[0] and str(error)[-20:] in lines[0]
    assert "checkpoint-2 is kept" in lines[0]
    assert [path.name for path in (tmp_path / "fold-0").iterdir() if "checkpoint" in path.name or path.is_dir()] == [
        "checkpoint-2"
    ]
    train(tmp_path, tokenizer)  # there is room again
    assert damage(tmp_path / "fold-0/checkpoint-6") is None


def test_another_error_while_saving_keeps_its_name(tokenizer, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        train(tmp_path, tokenizer)
