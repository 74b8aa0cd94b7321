"""
Checkpoints that are whole or not there. A checkpoint is written in `.partial`, with a manifest of the sizes and digests
of its files, and renamed to `checkpoint-N` when all of it is on the disk.
"""

import json
import os
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from accelerate.utils import gather_object
from safetensors import SafetensorError, safe_open
from transformers import TrainerState

from ..program import CANNOT_SAVE


MANIFEST = "manifest.json"
PARTIAL = ".partial"


def is_checkpoint(path: Path) -> bool:
    return path.is_dir() and path.name.removeprefix("checkpoint-").isdigit()


def list_checkpoints(output: Path) -> list[Path]:
    """Returns the checkpoints in a folder, the last step first."""
    found = filter(is_checkpoint, output.glob("checkpoint-*"))
    return sorted(found, key=lambda path: int(path.name.split("-")[1]), reverse=True)


def read_state(folder: Path) -> TrainerState | None:
    """Reads the state that a Trainer saves last in a folder; `None` if the state is missing or incomplete."""
    try:
        return TrainerState.load_from_json(str(folder / "trainer_state.json"))
    except (OSError, ValueError, TypeError):
        return None


def digest(path: Path) -> int:
    """Returns the CRC-32 of a file: it finds damage, not forgery, and is the fastest of the standard library."""
    found = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found = zlib.crc32(block, found)
    return found


def sync(path: Path):
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seal(partial: Path, folder: Path):
    """
    Writes the manifest of a complete checkpoint, waits until all files are on the disk, and renames `partial` to
    `folder`. A `folder` that exists is replaced.
    """
    files = sorted(path for path in partial.rglob("*") if path.is_file())
    content = {path.relative_to(partial).as_posix(): [path.stat().st_size, digest(path)] for path in files}
    (partial / MANIFEST).write_text(json.dumps({"size and crc32": content}, indent=1), encoding="utf-8")
    for path in [*partial.rglob("*"), partial]:
        sync(path)
    if folder.exists():
        folder.rename(partial.with_name(f"{folder.name}.old"))  # removed with the folder of `partial`
    partial.rename(folder)
    sync(folder.parent)


def damage(folder: Path) -> str | None:
    """
    Says in a few words what is wrong with a checkpoint; `None` if it is whole. Without a manifest (an older version
    wrote it), the state must be complete, and each file must have the form and length that its type has.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["size and crc32"]
        expected = {folder / name: (size, crc) for name, (size, crc) in content.items()}
    except FileNotFoundError:
        return damage_without_manifest(folder)
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is incomplete"
    for path, (size, _) in expected.items():  # first what costs nothing
        if not path.is_file():
            return f"{path.name} is missing"
        if path.stat().st_size != size:
            return f"{path.name} has {path.stat().st_size} bytes in place of {size}"
    changed = (f"{path.name} has changed" for path, (_, crc) in expected.items() if digest(path) != crc)
    return next(changed, None)


def damage_without_manifest(folder: Path) -> str | None:
    if read_state(folder) is None:
        return "it has no complete trainer_state.json"
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix == ".safetensors":
                with safe_open(path, "pt"):  # compares the length with the header
                    pass
            elif path.suffix in (".pt", ".pth", ".bin"):
                zipfile.ZipFile(path).close()  # its directory is at the end
        except (ValueError, SafetensorError, zipfile.BadZipFile):
            return f"{path.name} is incomplete"
    return None


def write_together(output: Path, name: str, writers: list[Callable], is_main: bool) -> Path:
    """
    Writes the checkpoint `output/name` on all processes together. If one of them cannot, all exit with code 74, and
    earlier checkpoints stay.

    Args:
        output (`Path`): folder of the run.
        name (`str`): name of the checkpoint.
        writers (`list[Callable]`): each is called with the folder to write to; all processes finish one before the next.
        is_main (`bool`): whether this process makes the folder and renames it.
    """
    aside, folder = output / PARTIAL, output / name

    def start(partial: Path):
        if is_main:
            shutil.rmtree(aside, ignore_errors=True)  # of a killed run
            partial.mkdir(parents=True)

    def finish(partial: Path):
        if is_main:
            seal(partial, folder)
            shutil.rmtree(aside, ignore_errors=True)

    for write in (start, *writers, finish):
        try:
            reason = write(aside / name)
        except Exception as error:
            if not is_write_error(error):
                raise
            reason = " ".join(str(error).split())
        if reasons := [found for found in gather_object([reason]) if found is not None]:
            if is_main:
                shutil.rmtree(aside, ignore_errors=True)
                whole = next((path for path in list_checkpoints(output) if damage(path) is None), None)
                kept = (
                    f"{whole} is kept, and the same command goes on from it"
                    if whole
                    else "it is the first of this run"
                )
                print(f"error: {folder} cannot be written: {reasons[0]}; {kept}", file=sys.stderr, flush=True)
            sys.exit(CANNOT_SAVE)
    return folder


def is_write_error(error: Exception) -> bool:
    """Tells whether a file could not be written: torch and safetensors have their own errors for a full disk."""
    torch_cannot = isinstance(error, RuntimeError) and "inline_container" in str(error)
    return isinstance(error, (OSError, SafetensorError)) or torch_cannot


def remove_old(output: Path, limit: int | None, keep: set[Path]):
    """Removes the earliest checkpoints in `output` until `limit` are left (all by default), never those of `keep`."""
    if limit is not None and limit > 0:
        others = [path for path in list_checkpoints(output) if path not in keep]
        remove(output, others[max(0, limit - len(keep)) :])


def remove(output: Path, checkpoints: list[Path]):
    """Removes checkpoints of `output`. They are renamed first: a removal that is killed leaves no part of one."""
    aside = output / PARTIAL
    shutil.rmtree(aside, ignore_errors=True)  # of a killed run
    if checkpoints:
        aside.mkdir(exist_ok=True)
    for path in checkpoints:
        path.rename(aside / path.name)
    shutil.rmtree(aside, ignore_errors=True)


__all__ = [
    "CANNOT_SAVE",
    "damage",
    "is_checkpoint",
    "list_checkpoints",
    "read_state",
    "remove",
    "remove_old",
    "write_together",
]
