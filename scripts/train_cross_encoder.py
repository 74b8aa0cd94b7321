#!/usr/bin/env python
"""
Trains a reranker further with sentence-transformers' CrossEncoderTrainer, on hard negatives that a dense model mines.

    python scripts/train_cross_encoder.py MODEL COLLECTION OUTPUT --negatives_from DENSE

MODEL is any reranker of this project or of others. The folds are those of run_clir.py: three train, the next one after
--fold chooses the epoch, and --fold is the test, measured before and after training. OUTPUT is a checkpoint like MODEL,
for run_clir.py, Reranker, CrossEncoder and the Auto classes. The head of the language model is not in it.
"""

import logging
import re
import shutil
import sys
from pathlib import Path

from modeling_clir.data.collections import check_folder
from modeling_clir.names import check_name
from modeling_clir.program import Parser, run_program, share_cores


logger = logging.getLogger("train_cross_encoder")


def main():
    share_cores()
    parser = Parser(description=__doc__)
    parser.add_argument("model", help="folder or Hub name of a reranker")
    parser.add_argument("collection", type=Path, help="folder with documents.jsonl, queries.tsv, qrels.txt")
    parser.add_argument("output", type=Path, help="a new folder for the trained model")
    parser.add_argument("--negatives_from", required=True, metavar="DENSE", help="folder or Hub name of a dense model")
    parser.add_argument(
        "--prompts",
        nargs=2,
        metavar=("QUERY", "DOCUMENT"),
        help="what the dense model reads in front of queries and documents, such as 'query: ' 'passage: ' for E5",
    )
    parser.add_argument("--num_negatives", type=int, default=3, help="negatives of a relevant document (default: 3)")
    parser.add_argument(
        "--negatives_margin",
        type=float,
        default=0.95,
        help="leave out documents above this share of the relevant document's score (default: 0.95)",
    )
    parser.add_argument("--fold", type=int, default=0, help="fold to test on (default: 0)")
    parser.add_argument("--max_length", type=int, help="longest pair in tokens (default: the model's)")
    parser.add_argument("--num_train_epochs", type=int, default=3, help="default: 3")
    parser.add_argument("--batch_size", type=int, default=16, help="lists of a training step (default: 16)")
    parser.add_argument("--learning_rate", type=float, default=2e-5, help="default: 2e-5")
    parser.add_argument("--seed", type=int, default=42, help="of the folds and of training (default: 42)")
    args = parser.parse_args()
    check_folder(args.collection)
    for name in (args.model, args.negatives_from):
        check_name(name, "model")
    for name in ("num_negatives", "num_train_epochs", "batch_size"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(args, name)}")

    # Imported here, so that help and mistakes in the arguments are answered at once
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator
    from sentence_transformers.cross_encoder.losses import LambdaLoss
    from torch.nn import Identity
    from transformers import AutoModelForSequenceClassification, set_seed

    from modeling_clir.data.collections import count_pairs, read_collection
    from modeling_clir.data.files import new_folder, refuse_existing
    from modeling_clir.data.first_stage import load_dense
    from modeling_clir.loading import load_pretrained, longest_input
    from modeling_clir.training.cross_encoder import mine_lists, reranking_samples

    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("modeling_clir").setLevel(logging.INFO)
    set_seed(args.seed)

    # 1. Data: the folds of the queries; a training list for each relevant document
    refuse_existing(args.output)
    collection = read_collection(args.collection)
    count_pairs([collection])
    train, development, test = collection.split(args.fold, args.seed)
    checked = load_pretrained(
        AutoModelForSequenceClassification, args.model, "rank"
    )  # says what is wrong with a model
    dense = load_dense(args.negatives_from, args.prompts)
    lists = mine_lists(collection, train, dense, args.num_negatives, args.negatives_margin)

    # 2. Model, loss and evaluators
    model = CrossEncoder(args.model, max_length=longest_input(*checked, args.max_length), activation_fn=Identity())
    loss = LambdaLoss(model)
    develop, final = (
        CrossEncoderRerankingEvaluator(
            reranking_samples(collection, queries), name=name, always_rerank_positives=False, write_csv=False
        )
        for name, queries in (("development", development), ("test", test))
    )
    before = final(model)["test_map"]

    # 3. Train; the epoch with the best MAP on the development fold is kept
    with new_folder(args.output) as folder:
        training_args = CrossEncoderTrainingArguments(
            output_dir=folder / "checkpoints",
            num_train_epochs=args.num_train_epochs,
            per_device_train_batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            warmup_steps=0.1,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model="eval_development_map",
            report_to="none",
            seed=args.seed,
        )
        trainer = CrossEncoderTrainer(model, training_args, train_dataset=lists, loss=loss, evaluator=develop)
        trainer.train()

        # 4. Test and save; the model's code is needed to open a BertLong, which the card's example does not say
        after = final(model)["test_map"]
        model.save_pretrained(folder)
        shutil.rmtree(folder / "checkpoints")
        if hasattr(model.config, "auto_map"):
            card = (folder / "README.md").read_text(encoding="utf-8")
            card = re.sub(r'CrossEncoder\(("[^"]*")\)', r"CrossEncoder(\1, trust_remote_code=True)", card)
            (folder / "README.md").write_text(card, encoding="utf-8")
    print(f"{collection.name}: MAP {before:.4f} -> {after:.4f} ({len(test)} queries)")


if __name__ == "__main__":
    run_program(main)
