#!/usr/bin/env python
"""
Builds a pretraining corpus from folders of aligned documents and of parallel SQuAD files.

    python scripts/build_corpus.py OUTPUT --languages en,de,fr,es --documents FOLDER ... --squad FOLDER ...

A folder of documents has {language}.jsonl[.gz], aligned by "id". Each line has "id", "sentences" (or "text") and
optionally "article", "title", "heading". A folder of SQuAD files has *.{language}.json[.gz] with the same paragraphs
in the same order. Documents and paragraphs without text are left out and counted; with --strict the first one ends
the run. OUTPUT gets a dataset card.

Hard negatives are other sections of the article, or else the nearest by BM25. With --negatives_from they are the
nearest by the vectors of a dense model, given the section in the pair's other language. Sections that score above
--negatives_margin times the score of the aligned section are likely relevant: they are left out and counted.

--teacher_model also writes the scores that run_pretraining.py --rr_loss margin_mse and kl train on: of every sentence
with the aligned section and its hard negatives, by any reranker or dense model.
"""

from collections import Counter
from pathlib import Path

from modeling_clir.licenses import check_license
from modeling_clir.names import check_name
from modeling_clir.program import Parser, run_program, share_cores


def main():
    share_cores()
    parser = Parser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder to write; it must not exist")
    parser.add_argument("--languages", required=True, help="such as en,de,fr,es")
    parser.add_argument("--documents", type=Path, nargs="*", default=[], help="folders of aligned JSONL documents")
    parser.add_argument("--squad", type=Path, nargs="*", default=[], help="folders of parallel SQuAD files")
    parser.add_argument("--squad_articles", default=":", help="only these articles, such as 0:24")
    parser.add_argument("--max_sentences", type=int, help="cut documents into sections of at most this many sentences")
    parser.add_argument("--validation_fraction", type=float, default=0.05, help="share held out (default 0.05)")
    parser.add_argument("--num_negatives", type=int, default=5, help="hard negatives listed per section (default 5)")
    parser.add_argument(
        "--negatives_from", metavar="MODEL", help="mine them with this dense model (folder or Hub name)"
    )
    parser.add_argument("--negatives_margin", type=float, default=0.95, help="see above (default 0.95)")
    parser.add_argument("--teacher_model", metavar="MODEL", help="write the scores of this model (folder or Hub name)")
    parser.add_argument(
        "--prompts",
        nargs=2,
        metavar=("QUERY", "DOCUMENT"),
        help="what a dense model reads in front of queries and documents, such as 'query: ' 'passage: ' for E5",
    )
    parser.add_argument("--same_language", action="store_true", help="also pair every section with itself (en-en ...)")
    parser.add_argument("--strict", action="store_true", help="the first empty document or paragraph ends the run")
    parser.add_argument("--license", help="of the texts, for the dataset card, such as cc-by-sa-4.0")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    check_license(args.license)
    models = [name for name in (args.negatives_from, args.teacher_model) if name]
    for name in models:
        check_name(name, "model")
    if args.prompts and not models:
        raise ValueError("--prompts needs --negatives_from or --teacher_model")

    # Imported here, so that help and mistakes in the arguments are answered at once
    from modeling_clir.data.corpus import parse_articles, read_documents, read_squad, write_corpus
    from modeling_clir.data.files import folder_name

    # 1. Read
    languages = list(dict.fromkeys(language.strip() for language in args.languages.split(",")))
    if not args.documents and not args.squad:
        raise ValueError("nothing to read: pass --documents or --squad")
    articles = parse_articles(args.squad_articles)
    sections, left_out = [], Counter()
    for folder in args.documents:
        sections += read_documents(folder, languages, args.max_sentences, left_out, args.strict)
    for folder in args.squad:
        sections += read_squad(folder, languages, articles, left_out, args.strict)

    # 2. Write
    counts = write_corpus(
        args.output,
        sections,
        languages,
        validation_fraction=args.validation_fraction,
        num_negatives=args.num_negatives,
        same_language=args.same_language,
        seed=args.seed,
        negatives_from=args.negatives_from,
        negatives_margin=args.negatives_margin,
        teacher_model=args.teacher_model,
        prompts=args.prompts,
        license=args.license,
        sources=[folder_name(folder) for folder in (*args.documents, *args.squad)],
        left_out=left_out,
    )

    # 3. Report
    for pair, splits in counts.items():
        print(f"{pair}: {splits['train']} aligned sections for training, {splits['validation']} held out")
    print(f"corpus: {args.output}")


if __name__ == "__main__":
    run_program(main)
