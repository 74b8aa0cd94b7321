#!/usr/bin/env bash
# Question answering across languages with a small model, with and without pretraining for retrieval. Trained on a part
# of SQuAD v1.1 in English, tested on MLQA and on XQuAD in all nine pairs of en, de, es.
#
#     recipes/mlqa_small.sh DATA
#
# DATA: a folder with squad/train-v1.1.json, mlqa/MLQA_V1 and xquad/xquad.{en,de,es}.json. Needs the checkpoints of
# recipes/xquad.sh. Takes 11 minutes per checkpoint on one core. Expected: results/mlqa.md.
set -euo pipefail
data=$1

for name in clir-bertlong bertlong; do
    python run_mlqa.py --config recipes/mlqa_small.yaml --model_name_or_path output/xquad/$name \
        --train_data "$data/squad/train-v1.1.json" --dev_data "$data/mlqa" --test_data "$data/mlqa" "$data/xquad" \
        --output_dir output/mlqa/$name
done
