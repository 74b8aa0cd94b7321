# Set-up, demo and checks. `make demo` and `make test` need nothing but Python 3.10-3.13.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
BASE ?= base
SEED ?= 0

# Of `make wikipedia`: a folder of dumps (docs/wikipedia.md), its languages, the pairs to train on. TOPICS=<file> joins
# the articles of dumps without Wikidata ids and language links
WIKIPEDIA ?= dumps
LANGUAGES ?= en,de
PAIRS ?= en-de
OUTPUT ?= output/wikipedia
TASKS ?= 4
WORKERS ?= 2

.PHONY: demo wikipedia test slow gpu style quality clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt "torch" "setuptools>=77"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[development]"
	touch $@

demo: $(VENV)/installed  ## convert, pretrain, rerank, MAP before and after; BASE=<Hub name> for another model
	$(BIN)/python scripts/demo.py --base $(BASE) --seed $(SEED)

wikipedia: $(VENV)/installed  ## dumps to corpus, and 20 steps of pretraining on it; WIKIPEDIA=<folder> LANGUAGES=en,de PAIRS=en-de
	$(BIN)/python scripts/build_wikipedia.py $(OUTPUT)/corpus --languages $(LANGUAGES) --source dumps \
		--input $(WIKIPEDIA) --tasks $(TASKS) --workers $(WORKERS) --validation_fraction 0 \
		$(if $(TOPICS),--topics $(TOPICS))
	$(BIN)/python run_pretraining.py --corpus $(OUTPUT)/corpus --model_name_or_path $(BASE) \
		--output_dir $(OUTPUT)/clir-bertlong --qlm_pairs $(PAIRS) --rr_pairs $(PAIRS) --max_length 256 --do_train \
		--max_steps 20 --per_device_train_batch_size 4 --logging_steps 5 --use_cpu --report_to none

test: $(VENV)/installed  ## fast tests, offline
	$(BIN)/python -m pytest -n auto

slow: $(VENV)/installed  ## what takes minutes
	$(BIN)/python -m pytest -m slow

gpu: $(VENV)/installed  ## what needs a GPU; without one the tests are skipped, and say so
	$(BIN)/python -m pytest -m gpu -rs

style: $(VENV)/installed  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

quality: $(VENV)/installed  ## check format, spelling and the model files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos
	$(BIN)/mlinter modeling_clir

clean:
	rm -rf $(VENV) output build *.egg-info
