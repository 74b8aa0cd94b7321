#!/usr/bin/env bash
# A real encoder as a reranker behind its own first stage, on two CPU cores. Takes a dense encoder (multilingual-e5-small
# is meant), pretrains it with RR, finetunes it on questions, and reranks its own first 10 documents: XQuAD articles
# 24-35, six directions between English, German and Spanish. The table has the first stage (the encoder's mean
# vectors), BM25 over the question in the documents' language, the reranker alone, and the reranker added to the first
# stage with a weight that is chosen on training articles; with the p-values of paired randomization tests. Tables of
# depths tell how many of the 10 are worth reranking, by questions about training articles and by those of the test.
#
#     recipes/e5.sh MODEL DATA [SEED ...]
#
# MODEL: a folder or Hub name, such as intfloat/multilingual-e5-small. DATA: as for recipes/base.sh, and SQuAD 1.1's
# squad/train-v1.1.json. A killed run continues if it is started again. results/e5.md has the measured result and the
# time. On a CPU that has nothing else to do, OMP_WAIT_POLICY=ACTIVE is faster.
set -euo pipefail
model=$1 data=$2
seeds=("${@:3}")
seeds=("${seeds[@]:-0}")
output=output/e5
pairs=(en-de de-en en-es es-en de-es es-de)
prompts=(--prompts "query: " "passage: ")

# Blocks of memory that are kept and not given back after each step: 7 % less time on a CPU
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=20000000000 MALLOC_TOP_PAD_=67108864

# 1. Build a corpus of short sections, of the first 24 articles and the other texts
[ -d $output/corpus ] || python scripts/build_corpus.py $output/corpus --languages en,de,fr,es --max_sentences 2 \
    --documents "$data/bible" "$data/ntrex" --squad "$data/xquad" --squad_articles 0:24 --num_negatives 7

# 2. Build collections: the questions of the first 24 articles and English questions of SQuAD to train on, with whole
#    articles in a fold; the other 12 articles to test; all with the encoder's first 10 documents
if [ ! -d $output/collections ]; then
    same=en-en,de-de,es-es cross=$(IFS=,; echo "${pairs[*]}")
    rm -rf $output/new
    python scripts/build_collections.py $output/new/train --pairs $cross --squad "$data/xquad" --squad_articles 0:24 --article_folds
    python scripts/build_collections.py $output/new --pairs $cross,$same --squad "$data/xquad" --squad_articles 24:36
    mkdir -p $output/squad
    cp "$data/squad/train-v1.1.json" $output/squad/squad.en.json
    python scripts/build_collections.py $output/new/squad --pairs en-en --squad $output/squad --squad_articles 2:7 --article_folds
    mv $output/new/squad/en-en $output/new/train/squad-en-en
    for folder in $output/new/train/*; do
        python scripts/first_stage.py $folder --model "$model" "${prompts[@]}" --k 10
        mv $folder $output/new/train-$(basename $folder)
    done
    rmdir $output/new/train $output/new/squad
    for pair in "${pairs[@]}"; do
        python scripts/first_stage.py $output/new/$pair --model "$model" "${prompts[@]}" --k 10
    done
    mv $output/new $output/collections
fi

# 3. Leave out dropout, with which a step takes a third longer on a CPU
[ -d $output/encoder ] || python - "$model" $output/encoder <<'END'
import sys
from transformers import AutoModel, AutoTokenizer
AutoTokenizer.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])
model = AutoModel.from_pretrained(sys.argv[1], hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
model.save_pretrained(sys.argv[2])
END

for seed in "${seeds[@]}"; do
    # 4. Pretrain
    accelerate launch --num_processes 1 run_pretraining.py --config recipes/e5.yaml --output_dir $output/clir-$seed --seed $seed \
        --resume_from_checkpoint true
    # 5. Finetune; rerank, alone and with the first stage
    accelerate launch --num_processes 1 run_clir.py --config recipes/clir_e5.yaml --model_name_or_path $output/clir-$seed \
        --train_collections $output/collections/train-* --collections "${pairs[@]/#/$output/collections/}" \
        --output_dir $output/reranker-$seed --seed $seed --first_stage_weight tune
    # 6. Compare depths on the training articles that were kept for development, the second fold
    python run_clir.py --model_name_or_path $output/reranker-$seed/transfer --collections $output/collections/train-* --fold 1 \
        --max_length 512 --max_query_length 64 --output_dir $output/development-$seed
    depths=$output/development-$seed/depths
    rm -rf $depths
    mkdir $depths
    for folder in $output/collections/train-*; do
        name=$(basename $folder)
        for file in $folder/{qrels.txt,candidates.run} $output/development-$seed/$name.run; do
            sed "s/^/$name./" $file >> $depths/$(basename ${file/$name.run/reranker.run})
        done
    done
    awk 'NR == FNR {ranked[$1]; next} $1 in ranked' $depths/reranker.run $depths/qrels.txt > $depths/ranked.txt
    python scripts/compare_depths.py $depths/{ranked.txt,candidates.run,reranker.run}
done

# 7. Compare in each direction, and over all queries of the six directions
rm -rf $output/runs
for pair in "${pairs[@]}"; do
    folder=$output/runs/$pair document=${pair#*-}
    mkdir -p $folder
    cp $output/collections/$pair/candidates.run $folder/dense.run
    python scripts/first_stage.py $output/collections/$pair --k 10 --output $folder/bm25.run \
        --queries $output/collections/$document-$document/queries.tsv > /dev/null
    for seed in "${seeds[@]}"; do
        cp $output/reranker-$seed/$pair.reranker.run $folder/reranker-$seed.run
        cp $output/reranker-$seed/$pair.run $folder/with-dense-$seed.run
    done
    for file in $output/collections/$pair/qrels.txt $folder/*.run; do
        sed "s/^/$pair./" $file >> $output/runs/$(basename $file)
    done
    echo "$pair"
    python scripts/compare_runs.py $output/collections/$pair $folder/{dense,bm25}.run $folder/{reranker,with-dense}-*.run
done
echo "all directions"
python scripts/compare_runs.py $output/runs/qrels.txt $output/runs/{dense,bm25}.run $output/runs/{reranker,with-dense}-*.run
for run in $output/runs/{reranker,with-dense}-*.run; do
    echo "$(basename $run)"
    python scripts/compare_depths.py $output/runs/{qrels.txt,dense.run} $run
done
