"""
Runs the stages of a build on the executors of `datatrove`: this machine, SLURM or Ray.

A stage is a function that is called once for each of its tasks, with a folder to write to. A finished task is a folder
`{work}/{stage}/{task:05d}`: it is written aside and renamed, so a task that was killed leaves nothing, and a finished one
is never repeated. A stage starts when all tasks of the one before have finished.

datatrove logs an error of a task with its traceback, and its Ray executor then goes on. Here a task keeps its error in
one line in `{work}/errors`, and the run ends with that line. All of datatrove's logs are in `{work}/logs`.
"""

import json
import logging
import os
import resource
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, redirect_stderr
from multiprocessing import get_context, parent_process
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any, NamedTuple

from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.logging import logger as datatrove_logger

from ..data.files import new_file
from ..program import describe, is_mistake


logger = logging.getLogger(__name__)

EXECUTORS = ("local", "slurm", "ray")
BETWEEN_REPORTS = 10  # seconds


class Stage(NamedTuple):
    """
    Args:
        name (`str`): name of its folder.
        function (`Callable`): called as `function(settings, task, folder, progress)`. It reads folders of earlier
            stages and writes to `folder`, an empty folder.
        tasks (`int`).
        counted (`str`): what [`Progress`] counts, such as `"pages"`.
    """

    name: str
    function: Callable[[Any, int, Path, "Progress"], None]
    tasks: int
    counted: str = ""


class Progress:
    """Counts what a running task has done. `file` shows it to others: `number`, `seconds`, `peak` (MB)."""

    def __init__(self, file: Path):
        self.file = file
        self.number = 0
        self.start = self.shown = time.monotonic()

    def add(self, number: int = 1):
        self.number += number
        if time.monotonic() > self.shown + 1:
            self.show()

    def show(self):
        self.shown = time.monotonic()
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
        facts = {"number": self.number, "seconds": self.shown - self.start, "peak": kilobytes / 1024}
        with new_file(self.file) as file:
            json.dump(facts, file)


class Task(PipelineStep):
    """The one step of a stage's pipeline: calls the function of the stage, and renames the folder that it wrote."""

    type = "modeling_clir"

    def __init__(self, stage: Stage, work: Path, settings: Any):
        self.name = stage.name
        super().__init__()
        self.stage, self.work, self.settings = stage, work, settings

    def run(self, data: None, rank: int = 0, world_size: int = 1):
        done = task_folder(self.work, self.stage.name, rank)
        if done.exists():
            return
        error_file = self.work / "errors" / f"{self.stage.name}-{rank:05d}.txt"
        progress = Progress(self.work / "progress" / f"{self.stage.name}-{rank:05d}.json")
        try:
            with TemporaryDirectory(prefix=f".{rank:05d}.", dir=done.parent) as parent:
                folder = Path(parent) / done.name
                folder.mkdir()
                self.stage.function(self.settings, rank, folder, progress)
                folder.rename(done)
            progress.show()
        except Exception as error:
            name_place(error, done)
            if is_mistake(error):
                with new_file(error_file) as file:
                    file.write(describe(error))
            raise


def name_place(error: Exception, place: Path):
    """Adds a place to an error of the system that has none, such as that of a full disk."""
    if isinstance(error, OSError) and error.errno and error.filename is None:
        error.filename = os.fspath(place)


class LocalExecutor(LocalPipelineExecutor):
    """
    datatrove's executor on this machine with other processes: they end with the first one, their death ends the run
    (the pool of `multiprocess` would wait for ever for what a killed process had in hand), and so does the first error.
    `pool` is set by [`run_stages`]; without one, or for a single task, this process works.
    """

    pool: ProcessPoolExecutor | None = None

    def run(self):
        pool, self.pool = self.pool, None  # not sent to the processes
        tasks = self.get_incomplete_ranks()
        if pool is None or len(tasks) == 1:
            for task in tasks:
                self.run_task(task)
            return
        futures: list[Future] = [pool.submit(self.run_task, task) for task in tasks]
        finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            future.cancel()
        for future in finished:
            future.result()

    def run_task(self, task: int):
        with quiet():
            self._run_for_rank(task, local_rank=1)


def end_with_parent():
    """Ends this process as soon as the one that started it is no more, even if that was killed."""

    def watch():
        parent_process().join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps what datatrove logs off the terminal; its files have it."""
    with open(os.devnull, "w", encoding="utf-8") as nothing, redirect_stderr(nothing):
        datatrove_logger.remove()
        yield
        datatrove_logger.remove()


def task_folder(work: Path, stage: str, task: int) -> Path:
    return work / stage / f"{task:05d}"


def finished_folders(work: Path, stage: str) -> list[Path]:
    """Lists the folders of a stage's finished tasks."""
    return sorted(path for path in (work / stage).iterdir() if not path.name.startswith("."))


def run_stages(
    stages: list[Stage], work: Path, settings: Any, executor: str, workers: int, slurm: dict[str, str] | None = None
) -> bool:
    """
    Runs what is unfinished of the stages, and logs the progress.

    Args:
        stages (`list[Stage]`).
        work (`Path`): folder of the build, for all machines the same.
        settings (`Any`): passed to the functions of the stages.
        executor (`str`): one of `EXECUTORS`.
        workers (`int`): how many tasks run at the same time.
        slurm (`dict[str, str]`, *optional*): `partition` and `time` of the SLURM jobs, and further options of `sbatch`.

    Returns whether all tasks have finished. With SLURM they have only been handed over, unless nothing was unfinished.

    Raises the error of a task: `ValueError` or `OSError` with one line if it is a mistake in the input.
    """
    shutil.rmtree(work / "errors", ignore_errors=True)
    for folder in ("errors", "progress", "logs", *(stage.name for stage in stages)):
        (work / folder).mkdir(parents=True, exist_ok=True)
    for stage in stages:  # what killed tasks have left
        for unfinished in [] if executor == "slurm" else (work / stage.name).glob(".*"):
            shutil.rmtree(unfinished)
    if executor == "slurm":
        return submit(stages, work, settings, workers, slurm or {})
    if executor == "ray":
        import ray

        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False, ignore_reinit_error=True)
    pool = None
    if executor == "local" and workers > 1:
        pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=end_with_parent)
    try:
        for stage in stages:
            if len(finished_folders(work, stage.name)) < stage.tasks:
                run_stage(stage, work, settings, executor, workers, pool)
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)
    return True


def run_stage(stage: Stage, work: Path, settings: Any, executor: str, workers: int, pool: ProcessPoolExecutor | None):
    """Runs the unfinished tasks of a stage. Raises the error of a task."""
    kind = RayPipelineExecutor if executor == "ray" else LocalExecutor
    pipeline = kind(
        [Task(stage, work, settings)],
        tasks=stage.tasks,
        workers=min(workers, stage.tasks),
        logging_dir=str(work / "logs" / stage.name),
        skip_completed=False,  # a finished task is known by its folder
    )
    if pool is not None:
        pipeline.pool = pool
    failed = None
    with reporting(stage, work), quiet():
        try:
            pipeline.run()
        except Exception as error:
            failed = error
    check_stage(stage, work, failed)


def check_stage(stage: Stage, work: Path, error: Exception | None):
    """Raises the error of a stage that has not finished."""
    for file in sorted((work / "errors").glob(f"{stage.name}-*.txt")):
        raise ValueError(file.read_text(encoding="utf-8")) from error
    if isinstance(error, BrokenExecutor):
        raise ChildProcessError(
            f"a process of the stage {stage.name!r} was killed, perhaps because memory ran out; take more tasks or fewer "
            "workers, or go on with the same command"
        ) from error
    if error is not None:
        name_place(error, work)  # not even the error could be written
        raise error
    if missing := stage.tasks - len(finished_folders(work, stage.name)):
        logs = work / "logs" / stage.name / "logs"
        raise ChildProcessError(f"{missing} of {stage.tasks} tasks of the stage {stage.name!r} failed; see {logs}")


def submit(stages: list[Stage], work: Path, settings: Any, workers: int, options: dict[str, str]) -> bool:
    """Hands the unfinished stages to SLURM, each to start after the one before. Returns whether there were none."""
    job = None
    python = Path(sys.executable).parent
    options = dict(options)
    partition, limit = options.pop("partition"), options.pop("time")
    for stage in stages:
        if len(finished_folders(work, stage.name)) == stage.tasks:
            continue
        executor = SlurmPipelineExecutor(
            [Task(stage, work, settings)],
            tasks=stage.tasks,
            workers=min(workers, stage.tasks),
            time=limit,
            partition=partition,
            job_name=f"wikipedia-{stage.name}",
            qos="",
            env_command=f'export PATH="{python}:$PATH" PYTHONPATH="{os.environ.get("PYTHONPATH", "")}"',
            logging_dir=str(work / "logs" / stage.name),
            skip_completed=False,
            with_srun=False,
            sbatch_args=options,
            depends_job_id=job,
        )
        with quiet():
            executor.run()
        job = executor.job_id
        logger.info(f"{stage.name}: job {job} of {stage.tasks} tasks")
    return job is None


@contextmanager
def reporting(stage: Stage, work: Path) -> Iterator[None]:
    """Logs the progress of a stage every `BETWEEN_REPORTS` seconds, and at its end."""
    start, over = time.monotonic(), Event()
    before = len(finished_folders(work, stage.name))

    def report():
        finished = len(finished_folders(work, stage.name))
        text = f"{stage.name}: {finished} of {stage.tasks} tasks"
        if before:
            text += f" ({before} had finished before)"
        usage = read_progress(work, stage.name)
        if stage.counted:
            speed = usage["number"] / max(usage["seconds"], 1e-3)
            text += f", {usage['number']:,.0f} {stage.counted}, {speed:,.0f} a second and process"
        logger.info(f"{text}; {time.monotonic() - start:,.0f} s, at most {usage['peak']:,.0f} MB a process")

    def watch():
        while not over.wait(BETWEEN_REPORTS):
            report()

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if len(finished_folders(work, stage.name)) == stage.tasks:
        report()


def read_progress(work: Path, stage: str) -> Counter:
    """Adds up `number` and `seconds` of a stage's tasks, running ones too; `peak` is the highest."""
    total = Counter(number=0, seconds=0, peak=0)
    for file in (work / "progress").glob(f"{stage}-*.json"):
        facts = json.loads(file.read_text(encoding="utf-8"))
        total["number"] += facts["number"]
        total["seconds"] += facts["seconds"]
        total["peak"] = max(total["peak"], facts["peak"])
    return total


__all__ = ["EXECUTORS", "Progress", "Stage", "finished_folders", "read_progress", "run_stages", "task_folder"]
