#!/usr/bin/env python
"""
Makes a corpus of the pretraining data of Yu, Fei, Li 2021.

    python scripts/import_2021.py FOLDER OUTPUT

FOLDER has a folder for each language pair, such as enfr or en-fr, with {language}_np.pkl and {language}_text.pkl. The
pickles may hold dicts, lists, tuples, strings and whole numbers; anything else is refused and nothing is run. What does
not fit together is left out and counted.
"""

from pathlib import Path

from modeling_clir.licenses import check_license
from modeling_clir.program import Parser, run_program


def main():
    parser = Parser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the language pairs")
    parser.add_argument("output", type=Path, help="folder to write; it must not exist")
    parser.add_argument("--validation_fraction", type=float, default=0.05, help="share held out (default 0.05)")
    parser.add_argument("--license", help="of the texts, for the dataset card, such as cc-by-sa-4.0")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    check_license(args.license)

    # Imported here, so that help and mistakes in the arguments are answered at once
    from modeling_clir.data.files import refuse_existing
    from modeling_clir.data.pickles_2021 import import_2021

    refuse_existing(args.output)
    counts, left_out = import_2021(args.folder, args.output, args.validation_fraction, args.seed, args.license)
    for pair, splits in counts.items():
        print(f"{pair}: {splits['train']} aligned sections for training, {splits['validation']} held out")
    for reason, number in left_out.items():
        if number:
            print(f"{reason}: {number}")
    print(f"corpus: {args.output}")


if __name__ == "__main__":
    run_program(main)
