"""The modules that an import and a command line load: no program loads a slow module that it does not use."""

import subprocess
import sys

import pytest

from .conftest import REPOSITORY


# Modules that take seconds to import. bm25s and corpora load pandas and pyarrow.
HEAVY = {"torch", "transformers", "datasets", "accelerate", "matplotlib", "ir_measures", "bm25s", "scipy", "pyarrow"}
SCRIPTS = sorted(path.name for path in REPOSITORY.glob("scripts/*.py"))
RUNNERS = sorted(path.name for path in REPOSITORY.glob("run_*.py"))


def imported(code: str) -> set[str]:
    """Returns the modules that a new interpreter has loaded after `code`."""
    code = f"import sys\n{code}\nprint('\\n', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def programs(*commands: list[str]) -> str:
    return f"""
import runpy
for command in {commands}:
    sys.argv = [*map(str, command)]
    try:
        run = runpy.run_path if command[0].endswith(".py") else runpy.run_module
        run(command[0], run_name="__main__")
    except SystemExit as stopped:
        assert stopped.code == ("--help" not in command) * 2, (command, stopped.code)
"""


def test_the_package_alone_is_light():
    modules = imported("import modeling_clir; modeling_clir.__version__; dir(modeling_clir)")
    assert not modules & HEAVY


@pytest.mark.parametrize(
    "first",
    [
        "import modeling_clir",
        "import modeling_clir.modeling_bertlong",
        "from modeling_clir import BertForXLRetrieval",
        "from transformers import AutoConfig, AutoModel",
    ],
)
def test_models_are_registered_whatever_is_imported_first(first):
    code = """
import modeling_clir
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForQuestionAnswering
config = AutoConfig.for_model("bertlong-xlr", vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=1)
config.intermediate_size = 4
for auto_class in (AutoModelForMaskedLM, AutoModelForQuestionAnswering):
    assert type(auto_class.from_config(config)).__module__ == "modeling_clir.modeling_bertlong"
"""
    modules = imported(first + code)
    assert not modules & {"datasets", "transformers.trainer", "transformers.pipelines", "matplotlib"}


def test_reranker_and_reader_are_names_of_the_package():
    modules = imported(
        "import modeling_clir.reranker as a, modeling_clir.reader as b\n"
        "from modeling_clir import Reader, Reranker\n"
        "assert Reranker is a.Reranker and Reader is b.Reader"
    )
    assert not modules & {"datasets", "transformers.trainer", "transformers.pipelines", "matplotlib", "ir_measures"}


def test_help_and_wrong_arguments_of_scripts_come_before_anything_heavy():
    commands = [[f"scripts/{name}", option] for name in SCRIPTS for option in ("--help", "--no_such_option")]
    modules = ("modeling_clir.convert", "modeling_clir.push", "modeling_clir.serve")
    commands += [[name, option] for name in modules for option in ("--help", "--no_such_option")]
    assert not imported(programs(*commands)) & HEAVY


def test_scripts_without_a_model_import_no_torch(tmp_path):
    modules = imported(
        "import runpy\n"
        "def run(program, *options):\n"
        "    sys.argv = [program, *options]\n"
        "    runpy.run_path(program, run_name='__main__')\n"
        f"output = {str(tmp_path)!r}\n"
        "run('scripts/build_corpus.py', output + '/corpus', '--languages', 'en,de', '--documents', 'sample/train')\n"
        "run('scripts/build_collections.py', output, '--pairs', 'en-de', '--documents', 'sample/test')\n"
        "run('scripts/first_stage.py', output + '/en-de')\n"
        "run('scripts/first_stage.py', output + '/en-de', '--k', '5', '--output', output + '/five.run')\n"
        "run('scripts/compare_runs.py', output + '/en-de', output + '/en-de/candidates.run', output + '/five.run')\n"
        "import modeling_clir.data.clef, modeling_clir.data.collections"
    )
    assert not modules & {"torch", "transformers", "accelerate", "datasets"}


def test_wrong_arguments_of_runners_come_before_torch():
    commands = [[name] for name in RUNNERS]
    commands += [["run_clir.py", "--model_name_or_path", "/nowhere/model", "--collections", "/nowhere", "--use_cpu"]]
    commands += [["run_clir.py", "--model_name_or_path", "base", "--collections", "/nowhere", "--output_dir", "o"]]
    commands += [["run_pretraining.py", "--corpus", "c", "--model_name_or_path", "m", "--mask_mode", "all", "--bf16"]]
    assert not imported(programs(*commands)) & (HEAVY - {"transformers"})


def test_help_of_runners_comes_before_the_trainer():
    """Where peft is installed, transformers imports it and all models with its `TrainingArguments`."""
    modules = imported("sys.modules['peft'] = None" + programs(*([name, "--help"] for name in RUNNERS)))
    assert not modules & {"datasets", "transformers.trainer", "matplotlib", "ir_measures", "torch._inductor"}
