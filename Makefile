# Set-up, demo and checks. `make demo` and `make test` need nothing but Python 3.10-3.13.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
BASE ?= base
SEED ?= 0

.PHONY: demo test slow style quality clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt "torch" "setuptools>=77"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[development]"
	touch $@

demo: $(VENV)/installed  ## convert, pretrain, rerank, MAP before and after; BASE=<Hub name> for another model
	$(BIN)/python scripts/demo.py --base $(BASE) --seed $(SEED)

test: $(VENV)/installed  ## fast tests, offline
	$(BIN)/python -m pytest -n auto

slow: $(VENV)/installed  ## what takes minutes
	$(BIN)/python -m pytest -m slow

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
