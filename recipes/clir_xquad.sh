#!/usr/bin/env bash
# The CLIR experiment of Yu, Fei, Li (2021) on XQuAD, en, de and es crossed: 5 folds of the questions, the epoch with the
# best development MAP, MAP over all questions, of 21 judged paragraphs each.
#
#     recipes/clir_xquad.sh DATA
#
# DATA: a folder with the files xquad.{en,de,es}.json. From the checkpoint of recipes/xquad.sh, which has not seen these 12
# articles. Goes on where it was when it is started again.
set -euo pipefail
data=$1
output=output/clir_xquad

# 1. Collections: 293 questions, 60 paragraphs; of each question 20 that are not relevant are judged
for pair in en-de en-es de-en de-es es-en es-de; do
    [ -d $output/collections/$pair ] || python scripts/build_collections.py $output/collections --pairs $pair --judged 20 \
        --squad "$data" --squad_articles 24:36
done

# 2. Finetune on folds, rank, measure: one model for each fold of each language pair
for pair in en-de en-es de-en de-es es-en es-de; do
    python run_clir.py --config recipes/clir_xquad.yaml --collections $output/collections/$pair \
        --output_dir $output/results/$pair
done
