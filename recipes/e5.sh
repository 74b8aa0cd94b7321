#!/usr/bin/env bash
# A real encoder as a reranker that ranks better than its own first stage. Converts a dense encoder (multilingual-e5-small
# is meant) to BertLong, pretrains it with RR, finetunes it on questions, and reranks its own first 20 documents: XQuAD
# articles 24-35, six directions between English, German and Spanish. The table has the first stage (the encoder's mean
# vectors), BM25 over the question in the documents' language, the reranker alone, and the reranker added to the first
# stage with a weight that is chosen on training articles; with the p-values of paired randomization tests.
#
#     recipes/e5.sh MODEL DATA [SEED ...]
#
# MODEL: a folder or Hub name, such as intfloat/multilingual-e5-small. DATA: as for recipes/base.sh, with squad/train-v1.1.json
# beside. Needs a GPU: it trains on 300,000 pairs a seed. A killed run continues if it is started again.
# results/e5.md says what is measured: the first stages, not yet the reranker.
set -euo pipefail
model=$1 data=$2
seeds=("${@:3}")
seeds=("${seeds[@]:-0}")
output=output/e5
pairs=(en-de de-en en-es es-en de-es es-de)
prompts=(--prompts "query: " "passage: ")
precision=$(python -c "import torch; print('true' if torch.cuda.is_available() else 'false')")

# 1. Build a corpus of the first 24 articles and the other texts, with hard negatives from the encoder
[ -d $output/corpus ] || python scripts/build_corpus.py $output/corpus --languages en,de,fr,es --max_sentences 5 \
    --documents "$data/bible" "$data/ntrex" --squad "$data/xquad" --squad_articles 0:24 \
    --negatives_from "$model" "${prompts[@]}" --num_negatives 7

# 2. Build collections: the questions of the first 24 articles and of 11 English SQuAD articles to train on, with whole
#    articles in a fold; the other 12 articles to test. The encoder is the first stage
if [ ! -d $output/collections ]; then
    mkdir -p $output/squad && cp "$data/squad/train-v1.1.json" $output/squad/squad.en.json
    all=en-en,de-de,es-es,$(IFS=,; echo "${pairs[*]}")
    rm -rf $output/new
    python scripts/build_collections.py $output/new/train --pairs $all --squad "$data/xquad" --squad_articles 0:24 --article_folds
    python scripts/build_collections.py $output/new/squad --pairs en-en --squad $output/squad --article_folds
    python scripts/build_collections.py $output/new --pairs $all --squad "$data/xquad" --squad_articles 24:36
    for folder in $output/new/train/* $output/new/squad/*; do
        mv $folder $output/new/$(basename $(dirname $folder))-$(basename $folder)
    done
    rmdir $output/new/train $output/new/squad
    for folder in $output/new/*; do
        python scripts/first_stage.py $folder --model "$model" "${prompts[@]}" --k 20
    done
    mv $output/new $output/collections
fi
[ -d $output/bertlong ] || python -m modeling_clir.convert "$model" $output/bertlong

for seed in "${seeds[@]}"; do
    # 3. Pretrain
    accelerate launch --num_processes 1 run_pretraining.py --config recipes/e5.yaml --output_dir $output/clir-$seed --seed $seed \
        --bf16 $precision --resume_from_checkpoint true
    # 4. Finetune; rerank, alone and with the first stage
    accelerate launch --num_processes 1 run_clir.py --config recipes/clir_e5.yaml --model_name_or_path $output/clir-$seed \
        --train_collections $output/collections/{train,squad}-* --collections "${pairs[@]/#/$output/collections/}" \
        --output_dir $output/reranker-$seed --seed $seed --bf16 $precision --first_stage_weight tune
done

# 5. Compare in each direction, and over all queries of the six directions
rm -rf $output/runs
for pair in "${pairs[@]}"; do
    folder=$output/runs/$pair document=${pair#*-}
    mkdir -p $folder
    cp $output/collections/$pair/candidates.run $folder/dense.run
    python scripts/first_stage.py $output/collections/$pair --k 20 --output $folder/bm25.run \
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
