#!/usr/bin/env python
"""
Builds a pretraining corpus of aligned sections from Wikipedia.

    python scripts/build_wikipedia.py OUTPUT --languages en,de,fr,es --source dumps --input FOLDER [--tasks N --workers N]

Sources: a folder of dumps; or finewiki, megawika2, structured by their name on the Hub, or a local folder in their
layout. docs/wikipedia.md says which files to fetch, and how many tasks to take.

A run that was killed goes on with the same command. Until the end everything is in OUTPUT.work; then OUTPUT is there,
whole. The same input and number of tasks give the same bytes on every executor and number of workers.
"""

import logging
import os
import shutil
from pathlib import Path

from modeling_clir.names import check_name, check_path, nearest
from modeling_clir.program import Parser, run_program, share_cores


def main():
    share_cores()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tasks share the cores, and the results their rounding
    parser = Parser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder to write; it must not exist")
    parser.add_argument("--languages", required=True, help="such as en,de,fr,es; names of Wikipedias")
    parser.add_argument("--source", required=True, help="dumps, finewiki, megawika2 or structured")
    parser.add_argument("--input", help="folder, or name on the Hub (default: the source's own)")
    parser.add_argument(
        "--topics", type=Path, metavar="FILE", help="dumps: lines of key, language, title join articles"
    )
    parser.add_argument("--encoder", metavar="MODEL", help="align with vectors of this model too (folder or Hub name)")
    parser.add_argument("--num_negatives", type=int, default=5, help="hard negatives listed per section (default 5)")
    parser.add_argument("--validation_fraction", type=float, default=0.01, help="share of topics (default 0.01)")
    parser.add_argument("--executor", default="local", help="local (default), slurm or ray")
    parser.add_argument("--tasks", type=int, default=1, help="parts of the work, and shards of the corpus (default 1)")
    parser.add_argument("--workers", type=int, default=1, help="tasks at the same time (default 1)")
    parser.add_argument("--slurm_partition", help="with --executor slurm")
    parser.add_argument("--slurm_time", default="24:00:00", help="limit of a job (default 24:00:00)")
    parser.add_argument("--slurm_memory", default="4G", help="memory of a task (default 4G)")
    parser.add_argument("--push_to_hub", metavar="REPO", help="upload the corpus as a data set of this name")
    args = parser.parse_args()
    languages = list(dict.fromkeys(language.strip() for language in args.languages.split(",")))
    check_arguments(args, languages)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("modeling_clir").setLevel(logging.INFO)

    # Imported here, so that help and mistakes in the arguments are answered at once
    try:
        from modeling_clir.wikipedia.pipeline import SOURCES, build, list_input
        from modeling_clir.wikipedia.work import Settings
    except ImportError as error:
        raise ImportError(f'{error}; pip install -e ".[wikipedia]"') from error

    from modeling_clir.push import check_access, push

    # 1. What to build
    if args.push_to_hub:
        check_access(args.push_to_hub)
    if args.source not in SOURCES:
        raise ValueError(
            f"--source is one of {', '.join(SOURCES)}, got {args.source!r}{nearest(args.source, SOURCES)}"
        )
    name = args.input or default_input(args.source)
    topics = args.topics and os.path.abspath(args.topics)
    settings = Settings(
        output=os.path.abspath(args.output),
        languages=tuple(languages),
        source=args.source,
        input=os.path.abspath(name) if Path(name).exists() else name,
        tasks=args.tasks,
        encoder=args.encoder and (os.path.abspath(args.encoder) if Path(args.encoder).exists() else args.encoder),
        num_negatives=args.num_negatives,
        validation_fraction=args.validation_fraction,
        topics=topics,
        files=list_input(args.source, os.path.abspath(name) if Path(name).exists() else name, languages, topics),
    )

    if args.encoder and not settings.work.exists():  # a wrong model is named now, not by the last tasks
        from modeling_clir.data.first_stage import load_dense

        load_dense(settings.encoder)

    # 2. Build
    slurm = {"partition": args.slurm_partition, "time": args.slurm_time, "mem-per-cpu": args.slurm_memory}
    if not build(settings, args.executor, args.workers, slurm):
        print(
            f"handed to SLURM; the last job makes {args.output}. A task that fails says why in {settings.work}/errors"
        )
        return
    print((args.output / "README.md").read_text(encoding="utf-8").partition("\n---\n")[2].strip())
    print(f"corpus: {args.output}")

    # 3. Upload
    if args.push_to_hub:
        print(f"uploaded: {push(args.output, args.push_to_hub, dataset=True)}")


def check_arguments(args, languages: list[str]):
    if len(languages) < 2 or not all(languages):
        raise ValueError(f"--languages needs two or more languages, such as en,de; got {args.languages!r}")
    if hyphen := [language for language in languages if "-" in language]:
        raise ValueError(f"--languages: write {hyphen[0].replace('-', '_')}, not {hyphen[0]}")
    if args.tasks < 1 or args.workers < 1:
        raise ValueError(f"--tasks and --workers are at least 1, got {args.tasks} and {args.workers}")
    if args.num_negatives < 0:
        raise ValueError(f"--num_negatives is at least 0, got {args.num_negatives}")
    if not 0 <= args.validation_fraction < 1:
        raise ValueError(f"--validation_fraction is at least 0 and below 1, got {args.validation_fraction}")
    if args.executor not in ("local", "slurm", "ray"):
        raise ValueError(f"--executor is local, slurm or ray, got {args.executor!r}")
    if args.executor == "slurm" and not args.slurm_partition:
        raise ValueError("--executor slurm needs --slurm_partition")
    if args.executor == "slurm" and not shutil.which("sbatch"):
        raise ValueError("--executor slurm needs the program sbatch; run this on a machine that hands jobs to SLURM")
    if args.executor == "slurm" and args.push_to_hub:
        raise ValueError(
            "--push_to_hub needs --executor local or ray; with slurm upload the finished corpus by "
            "python -m modeling_clir.push OUTPUT REPO --dataset"
        )
    if args.topics:
        check_path(args.topics)
        if args.source != "dumps":
            raise ValueError(f"--topics goes with --source dumps, not {args.source}")
    if args.encoder:
        check_name(args.encoder, "model")


def default_input(source: str) -> str:
    from modeling_clir.wikipedia.hub_sources import SOURCES

    if source not in SOURCES:
        raise ValueError(f"--source {source} needs --input FOLDER")
    return SOURCES[source].name


if __name__ == "__main__":
    run_program(main)
