"""Programs: their start, and the line that they print for a mistake."""

import errno
import json
import os

import pyarrow
import pytest
from huggingface_hub.errors import HTTPError, StrictDataclassFieldValidationError
from safetensors import SafetensorError

from modeling_clir import program
from modeling_clir.program import CANNOT_SAVE, Parser, cpu_quota, fix_rounding, run_program, share_cores


def groups(folder, lines: str, **files: str):
    (folder / "own").write_text(lines, encoding="utf-8")
    for name, content in files.items():
        path = folder / "groups" / name.replace("__", "/").replace("cpu_", "cpu.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder / "groups", folder / "own"


@pytest.mark.parametrize(
    ("lines", "files", "expected"),
    [
        ("0::/\n", {"cpu_max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu_max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a__cpu_max": "300000 100000\n", "a__b__cpu_max": "max 100000\n"}, 3),
        ("0::/not/in/this/container\n", {"cpu_max": "50000 100000\n"}, 0.5),
        ("3:cpu,cpuacct:/x\n0::/\n", {"cpu__x__cpu_cfs_quota_us": "400000", "cpu__x__cpu_cfs_period_us": "100000"}, 4),
        ("1:cpu:/\n", {"cpu__cpu_cfs_quota_us": "-1\n", "cpu__cpu_cfs_period_us": "100000\n"}, None),
        ("4:memory:/x\n", {}, None),
    ],
)
def test_cpu_quota(tmp_path, lines, files, expected):
    assert cpu_quota(*groups(tmp_path, lines, **files)) == expected


def test_share_cores(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr(program, "cpu_quota", lambda: None)
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    share_cores()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE" and "OMP_NUM_THREADS" not in os.environ
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    monkeypatch.setattr(program, "cpu_quota", lambda: 1.5)
    share_cores()
    assert os.environ["OMP_NUM_THREADS"] == "2"
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5}, raising=False)
    share_cores()
    assert "OMP_NUM_THREADS" not in os.environ  # OpenMP counts the one core itself
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    share_cores()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE" and os.environ["OMP_NUM_THREADS"] == "7"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("avx2 avx512f avx512bw", "AVX512,STRICT"), ("sse4_2 avx2", "AVX2,STRICT"), (None, "AVX2,STRICT")],
)
def test_fix_rounding(flags, expected, tmp_path, monkeypatch):
    monkeypatch.delenv("MKL_CBWR")
    if flags:
        (tmp_path / "cpuinfo").write_text(
            f"processor\t: 0\nflags\t\t: fpu {flags} rdpid\nbugs\t\t:\n", encoding="utf-8"
        )
    fix_rounding(tmp_path / "cpuinfo")
    assert os.environ["MKL_CBWR"] == expected
    monkeypatch.setenv("MKL_CBWR", "AUTO")
    fix_rounding(tmp_path / "cpuinfo")
    assert os.environ["MKL_CBWR"] == "AUTO"


def parser() -> Parser:
    made = Parser()
    made.add_argument("folder")
    made.add_argument("--max_length", type=int)
    made.add_argument("--pairs", required=True)
    return made


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["x", "--max_lenght", "3"], r"^there is no option --max_lenght; did you mean --max_length\?$"),
        (["x", "--zzz"], "^there is no option --zzz; see --help$"),
        (["x", "--pairs=1", "--max_length=a"], "^argument --max_length: invalid int value: 'a'$"),
        (["x"], "^the following arguments are required: --pairs$"),
        (["x", "y", "--pairs", "z"], "^unrecognized arguments: y$"),
    ],
)
def test_mistakes_in_arguments(argv, message):
    with pytest.raises(ValueError, match=message):
        parser().parse_args(argv)
    assert parser().parse_args(["x", "--pai", "z", "--max_length=5"]).max_length == 5


def ended(capsys, error: BaseException | None) -> tuple[object, str]:
    def main():
        if error is not None:
            raise error

    with pytest.raises(SystemExit) as stopped:
        run_program(main)
    return stopped.value.code, capsys.readouterr().err


def missing_file(path) -> OSError:
    with pytest.raises(OSError) as raised:
        path.read_text(encoding="utf-8")
    return raised.value


def test_a_mistake_is_one_line(capsys, tmp_path, monkeypatch):
    (tmp_path / "qrels.txt").write_text("", encoding="utf-8")
    assert ended(capsys, ValueError("a message\n  of two lines")) == (2, "error: a message of two lines\n")
    expected = f"error: there is no {tmp_path}/qrel.txt; did you mean {tmp_path}/qrels.txt?\n"
    assert ended(capsys, missing_file(tmp_path / "qrel.txt")) == (2, expected)
    assert ended(capsys, missing_file(tmp_path)) == (2, f"error: {tmp_path}: is a directory\n")
    report = tmp_path / "report.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(report))
    assert ended(capsys, ImportError("pip install it")) == (2, "error: pip install it\n")
    assert json.loads(report.read_text(encoding="utf-8"))["message"] == "error: pip install it"


def test_a_full_disk_has_a_code_of_its_own(capsys):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run.json")
    assert ended(capsys, full) == (CANNOT_SAVE, "error: run.json: no space left on device\n")
    rust = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert ended(capsys, rust)[0] == CANNOT_SAVE == 74


def test_an_interrupt_is_one_word(capsys, monkeypatch):
    assert ended(capsys, KeyboardInterrupt()) == (130, "interrupted\n")
    monkeypatch.setenv("RANK", "1")
    assert ended(capsys, KeyboardInterrupt()) == (130, "")


def test_the_traceback_is_for_debugging(capsys, monkeypatch):
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "debug")
    code, printed = ended(capsys, ValueError("why"))
    assert code == 2 and printed.startswith("Traceback") and printed.endswith("\nerror: why\n")


def test_of_several_processes_the_first_one_speaks(capsys, monkeypatch):
    waited = []
    monkeypatch.setattr(program.time, "sleep", waited.append)
    monkeypatch.setenv("RANK", "1")
    assert ended(capsys, ValueError("why")) == (2, "error: process 1: why\n")
    assert waited == [program.WAIT_FOR_FIRST]  # in which the launcher ends it, if the first one has failed


def test_what_is_no_mistake_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="out of memory"):
        run_program(lambda: (_ for _ in ()).throw(RuntimeError("out of memory")))

    def _run_epoch():  # as the Trainer's
        json.loads("{")

    with pytest.raises(json.JSONDecodeError):
        run_program(_run_epoch)


def test_what_libraries_raise_for_files_and_the_hub_is_a_mistake(capsys):
    for error in (
        HTTPError("Name or service not known"),
        pyarrow.lib.ArrowTypeError("chunks"),
        SafetensorError("header too small"),
        StrictDataclassFieldValidationError("hidden_size", TypeError("expected int")),
    ):
        code, printed = ended(capsys, error)
        assert code == 2 and printed.startswith("error: ") and printed.count("\n") == 1
