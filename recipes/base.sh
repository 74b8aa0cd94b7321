#!/usr/bin/env bash
# The base in base/: a small multilingual BERT from parallel texts alone.
#
#     recipes/base.sh DATA
#
# DATA has bible/ and ntrex/ ({language}.jsonl.gz, aligned by id) and xquad/ (xquad.{language}.json). base/README.md names
# the sources of all three. Writes output/base/half, which is base/. Expected: the held-out numbers in base/README.md.
set -euo pipefail
data=$1
languages=en,de,fr,es
sources=(--documents "$data/bible" "$data/ntrex" --squad "$data/xquad" --squad_articles 0:24 --validation_fraction 0.02)

# 1. Build sections of one sentence for the word vectors, and sections of two sentences for the training
python scripts/build_corpus.py output/base/sentences --languages $languages "${sources[@]}" --max_sentences 1
python scripts/build_corpus.py output/base/corpus --languages $languages "${sources[@]}" --max_sentences 2 --same_language

# 2. Write a vocabulary, word vectors by latent semantic indexing, and a first layer that attends to similar tokens
python scripts/initialize_base.py output/base/sentences output/base/initial

# 3. Train query language modelling in all pairs of languages, and in each language by itself
accelerate launch --cpu --num_processes 1 run_pretraining.py --config recipes/base.yaml

# 4. Save in half precision
python - <<'PYTHON'
from transformers import AutoTokenizer
from modeling_clir import BertForXLRetrieval

BertForXLRetrieval.from_pretrained("output/base/bert").half().save_pretrained("output/base/half")
AutoTokenizer.from_pretrained("output/base/bert").save_pretrained("output/base/half")
PYTHON
