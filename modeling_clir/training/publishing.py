"""What every runner does for others: the facts of the run for its card, and the upload of the result."""

import csv
import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path

import torch
import yaml
from transformers.trainer_utils import HubStrategy
from transformers.utils import logging

from .. import __version__
from ..data.languages import card_languages
from ..push import check_access, push
from .resuming import WITHOUT_EFFECT, has_begun
from .training_arguments import XLRetrievalTrainingArguments


logger = logging.get_logger(__name__)

# Options that the recipe of a card leaves out beside those without effect: they say where, not what.
OF_THE_PLACE = {"use_cpu", "token", "cache_dir", "local_files_only"}
SHOWN = {"do_train", "do_eval"}  # without effect on numbers, but a recipe needs them


@dataclass
class RunFacts:
    """
    Facts of a run that every card shows.

    Attributes:
        program (`str`): file name of the runner.
        recipe (`str`): the options that differ from the defaults, in YAML, as `--config` reads them.
        hardware (`str`): in words.
        seconds (`float`, *optional*): from the start of the run; none if it was resumed.
        energy (`tuple[float, float]`, *optional*): kWh, and kg of CO2, if codecarbon has measured them.
        versions (`dict[str, str]`): name of a package to its version.
        license (`str`, *optional*): that of `--license`.
    """

    program: str
    recipe: str
    hardware: str
    seconds: float | None = None
    energy: tuple[float, float] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    license: str | None = None

    @property
    def duration(self) -> str | None:
        if self.seconds is None:
            return None
        hours, minutes = divmod(round(self.seconds / 60), 60)
        return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{self.seconds:.0f} s"


class Publication:
    """
    Made before the training, it checks what `--push_to_hub` needs; after it, it has the facts and uploads.

    Args:
        program (`str`): file name of the runner.
        options (`Sequence[object]`): the runner's own dataclasses of options.
        args (`XLRetrievalTrainingArguments`): training arguments. `push_to_hub` is cleared in place if only the final
            model is to be uploaded, so that the Trainer makes no repository and uploads nothing.
        languages (`Iterable[str]`): languages that the card will name.

    Raises `ValueError` for a language that the Hub does not accept, and in the cases of [`check_access`].
    """

    def __init__(
        self, program: str, options: Sequence[object], args: XLRetrievalTrainingArguments, languages: Iterable[str]
    ):
        self.program, self.args, self.folder = program, args, Path(args.output_dir)
        self.resumed, self.started = has_begun(self.folder), time.time()
        self.recipe = write_recipe([*options, args])
        self.repo = None
        if not args.push_to_hub:
            return
        languages = list(dict.fromkeys(languages))
        if refused := [code for code in languages if code not in card_languages(languages)]:
            raise ValueError(
                f"--push_to_hub: the Hub accepts no card with the language {', '.join(refused)}: rename it in the data "
                "to a code of ISO 639 (en for simple, lzh for zh_classical)"
            )
        self.repo = args.hub_model_id or self.folder.resolve().name
        if args.should_save:
            self.repo = check_access(self.repo, args.hub_token)
        if args.hub_strategy == HubStrategy.END:
            args.push_to_hub = False

    def facts(self) -> RunFacts:
        return RunFacts(
            program=self.program,
            recipe=self.recipe,
            hardware=describe_hardware(self.args),
            seconds=None if self.resumed else time.time() - self.started,
            energy=read_energy(self.folder),
            versions={
                "modeling_clir": __version__,
                **{name: version(name) for name in ("transformers", "torch", "tokenizers")},
                "Python": platform.python_version(),
            },
            license=self.args.license,
        )

    def push(self):
        """Uploads the folder, if it is asked for. What fails can be done by `python -m modeling_clir.push`."""
        if self.repo is None or not self.args.should_save:
            return
        try:
            url = push(
                self.folder,
                self.repo,
                bool(self.args.hub_private_repo),
                self.args.hub_revision,
                token=self.args.hub_token,
            )
        except ValueError as error:
            raise ValueError(
                f"{error}. The results are whole in {self.folder}; to upload them later: python -m modeling_clir.push "
                f"{self.folder} {self.repo}"
            ) from error
        print(f"uploaded: {url}")


def write_recipe(options: Sequence[object]) -> str:
    """Writes the options that differ from their defaults in YAML. Of local paths it names only the last part."""
    chosen = {}
    for one in options:
        given = getattr(one, "given", vars(one))  # before `TrainingArguments` changed them
        for option in fields(one):
            value = given[option.name]
            default = option.default_factory() if option.default_factory is not MISSING else option.default
            if option.name in (WITHOUT_EFFECT | OF_THE_PLACE) - SHOWN or not option.init:
                continue
            if value == default or value is None:
                continue
            value = getattr(value, "value", value)  # of an enumeration
            if value != default:
                chosen[option.name] = [shorten(part) for part in value] if isinstance(value, list) else shorten(value)
    return yaml.safe_dump(chosen, sort_keys=False, allow_unicode=True, width=1000).strip()


def shorten(value):
    if isinstance(value, str) and (os.sep in value or value.startswith(".")) and Path(value).exists():
        return Path(value).resolve().name
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def describe_hardware(args: XLRetrievalTrainingArguments) -> str:
    """Such as `"8 x NVIDIA H100 80GB HBM3"` or `"CPU (x86_64, 2 threads)"`."""
    number = args.world_size
    if args.device.type == "cuda":
        return f"{number} x {torch.cuda.get_device_name(args.device)}"
    name = args.device.type.upper()
    if args.device.type == "cpu":
        threads = torch.get_num_threads()
        name = f"CPU ({platform.machine()}, {threads} thread{'s' * (threads > 1)})"
    return f"{number} processes, each on a {name}" if number > 1 else name


def read_energy(folder: Path) -> tuple[float, float] | None:
    """Reads kWh and kg of CO2 from the `emissions.csv` that `--report_to codecarbon` writes; `None` without it."""
    path = folder / "emissions.csv"
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return sum(float(row["energy_consumed"]) for row in rows), sum(float(row["emissions"]) for row in rows)


__all__ = ["Publication", "RunFacts", "describe_hardware", "write_recipe"]
