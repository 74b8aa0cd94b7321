#!/usr/bin/env bash
# The CLIR experiment of Yu, Fei, Li (2021) on XQuAD in six pairs of en, de and es, with and without pretraining. It has 5
# folds of the 925 questions with 21 judged paragraphs each. Development MAP selects the epoch; MAP is over all questions.
#
#     recipes/clir_xquad.sh DATA
#
# DATA: a folder with the files xquad.{en,de,es}.json. Needs the checkpoints of recipes/xquad.sh. Takes about an hour per
# checkpoint on one core. A killed run continues if it is started again. Expected: results/clir_xquad.md.
set -euo pipefail
data=$1
output=output/clir_xquad
pairs=(en-de en-es de-en de-es es-en es-de)

# 1. Build collections: 925 questions, 180 paragraphs; 20 paragraphs of each question are judged not relevant
for pair in "${pairs[@]}"; do
    [ -d $output/collections/$pair ] || python scripts/build_collections.py $output/collections --pairs $pair --judged 20 \
        --squad "$data"
done

# 2. Rank with the pretrained checkpoint, without finetuning
python run_clir.py --model_name_or_path output/xquad/clir-bertlong --collections "${pairs[@]/#/$output/collections/}" \
    --max_length 384 --dtype bfloat16 --use_cpu --output_dir $output/zero-shot

# 3. Finetune on folds, rank and measure: one model for each fold of each language pair
for name in clir-bertlong bertlong; do
    for pair in "${pairs[@]}"; do
        python run_clir.py --config recipes/clir_xquad.yaml --model_name_or_path output/xquad/$name \
            --collections $output/collections/$pair --output_dir $output/$name/$pair
    done
done
