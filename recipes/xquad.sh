#!/usr/bin/env bash
# From the base to a reranker on real text: pretrains with QLM and RR in 30 minutes on 2 CPU cores. Measures MAP before
# and after pretraining: the models rank paragraphs of 12 XQuAD articles, unseen by both, for questions in another
# language.
#
#     recipes/xquad.sh DATA
#
# DATA as for recipes/base.sh. Expected: results/xquad.md.
set -euo pipefail
data=$1
output=output/xquad
languages=en,de,fr,es
sources=(--documents "$data/bible" "$data/ntrex" --squad "$data/xquad" --squad_articles 0:24)

# 1. Build a corpus of the first 24 articles and the other texts, and collections of the other 12 articles
python scripts/build_corpus.py $output/corpus --languages $languages "${sources[@]}" --max_sentences 5
python scripts/build_collections.py $output/collections --pairs en-de,de-en,en-es,es-de --squad "$data/xquad" --squad_articles 24:36

# 2. Convert BERT to BertLong
python -m modeling_clir.convert base $output/bertlong

# 3. Pretrain
accelerate launch --cpu --num_processes 1 run_pretraining.py --config recipes/xquad.yaml

# 4. Rerank, before and after the pretraining
for name in bertlong clir-bertlong; do
    python run_clir.py --model_name_or_path $output/$name --collections $output/collections/* --use_cpu \
        --output_dir $output/results/$name
done
