"""
Questions with the passage (context) that holds the answer, in the layouts of SQuAD, MLQA and XQuAD. What is asked in one
language about a context in another has a key, `context-de.question-en`.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from datasets import get_dataset_config_names, get_dataset_split_names, load_dataset
from transformers.utils import logging


logger = logging.get_logger(__name__)

KEY = re.compile(r"context-(?P<context>\w+)\.question-(?P<question>\w+)")
MLQA_FILE = re.compile(r"(?P<role>dev|test)-context-(?P<context>\w+)-question-(?P<question>\w+)\.json")
MLQA_CONFIG = re.compile(r"(mlqa|MLQA)\.(?P<context>\w+)\.(?P<question>\w+)")
PARALLEL_FILE = re.compile(r"(?P<name>[^.]+)\.(?P<language>[a-z]{2})\.json")
XQUAD_CONFIG = re.compile(r"xquad\.(?P<language>\w+)")
HUB_SPLITS = {"train": ("train",), "dev": ("validation", "dev"), "test": ("test", "validation")}


@dataclass
class Question:
    """
    Attributes:
        id, text, context (`str`).
        answers (`list[tuple[str, int]]`): text and place of its first character in the context; none where the
            context does not answer the question (SQuAD v2.0).
    """

    id: str
    text: str
    context: str
    answers: list[tuple[str, int]]


@dataclass
class QuestionSet:
    """
    Questions in one language on contexts in one language.

    Attributes:
        name (`str`): of the data set, as `mlqa`.
        context_language, question_language (`str`): codes, as `de`.
        questions (`list[Question]`).
        answered_like (`str`): `"mlqa"` or `"squad"`, whose normalization of answers is the data set's own.
    """

    name: str
    context_language: str
    question_language: str
    questions: list[Question]
    answered_like: str = "squad"

    @property
    def key(self) -> str:
        return language_key(self.context_language, self.question_language)

    @property
    def answers(self) -> dict[str, list[str]]:
        """Question id to the texts of its answers."""
        return {question.id: [text for text, _ in question.answers] for question in self.questions}

    @property
    def unanswerable(self) -> int:
        return sum(not question.answers for question in self.questions)


def language_key(context_language: str, question_language: str) -> str:
    return f"context-{context_language}.question-{question_language}"


def parse_key(key: str) -> tuple[str, str]:
    """Languages of context and question. Raises `ValueError` for anything but `context-de.question-en`."""
    if not (match := KEY.fullmatch(key)):
        raise ValueError(f"a pair of languages is given as context-de.question-en, got {key!r}")
    return match["context"], match["question"]


# ---------------------------------------------------------------------------------------------------------------------
# One file or split
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class QuestionReader:
    """
    Collects checked questions.

    Args:
        where (`str`): the file or data set, for errors.
        training (`bool`): whether an answer must be where its offset says. In tests, which compare texts alone, one
            that is not is reported and stays.
        bad_data (`str`, defaults to `"stop"`): what to do about such answers in training, ids that occur twice,
            contexts without a question, and empty texts: `"stop"` with an error that counts them and names the first of
            each kind, or `"skip"` them, with a warning that does.
    """

    where: str
    training: bool
    bad_data: str = "stop"
    questions: dict[str, Question] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    misplaced: list[str] = field(default_factory=list)

    def fault(self, kind: str, name: str):
        self.faults.setdefault(kind, []).append(name)

    def add(self, question: Question):
        here = [
            (text, at)
            for text, at in question.answers
            if text.strip() and at >= 0 and question.context[at : at + len(text)] == text
        ]
        if question.id in self.questions:
            self.fault("question ids that occur more than once", question.id)
            return
        if not question.text.strip() or not question.context.strip():
            self.fault("questions that are empty or have an empty context", question.id)
            return
        if len(here) < len(question.answers):
            text, at = next(answer for answer in question.answers if answer not in here)
            found = question.context[max(at, 0) : max(at, 0) + len(text)]
            self.misplaced.append(f"{question.id} ({text!r}, there: {found!r})")
            if self.training and not here:
                return
        if self.training:
            question.answers = here
        self.questions[question.id] = question

    def finish(self) -> list[Question]:
        misplaced = {"questions with an answer that is not where its offset says": self.misplaced}
        faults = self.faults | misplaced if self.training else self.faults
        if found := describe_faults(faults):
            if self.bad_data == "stop":
                raise ValueError(f"{self.where}: {found}. Mend the data, or leave these out with --bad_data skip")
            logger.warning(f"{self.where}: {found}; left out")
        if not self.training and self.misplaced:
            logger.warning(f"{self.where}: {describe_faults(misplaced)}; it stays, as texts are compared")
        if not self.questions:
            raise ValueError(f"{self.where} has no question")
        return list(self.questions.values())


def describe_faults(faults: dict[str, list[str]]) -> str:
    return "; ".join(f"{len(names)} {kind}, {names[0]} the first" for kind, names in faults.items() if names)


def read_squad_file(path: Path, training: bool = False, bad_data: str = "stop") -> list[Question]:
    """
    The questions of a JSON file in the layout of SQuAD v1.1 or v2.0. Raises `FileNotFoundError`, and `ValueError` for
    another layout (naming the place in the file) and as [`QuestionReader`].
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error}); convert the file") from error
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    reader = QuestionReader(str(path), training, bad_data)
    place = "data"
    try:
        for a, article in enumerate(data["data"]):
            place = f"data[{a}].paragraphs"
            for p, paragraph in enumerate(article["paragraphs"]):
                place = f"data[{a}].paragraphs[{p}]"
                context, asked = paragraph["context"], paragraph["qas"]
                if not asked:
                    reader.fault("contexts without a question", place)
                for q, qa in enumerate(asked):
                    place = f"data[{a}].paragraphs[{p}].qas[{q}]"
                    answers = [] if qa.get("is_impossible") else qa["answers"]
                    reader.add(
                        make_question(
                            qa["id"], qa["question"], context, [(a["text"], a["answer_start"]) for a in answers]
                        )
                    )
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not in SQuAD's layout at {place} ({error!r})") from error
    return reader.finish()


def make_question(key: str | int, text: str, context: str, answers: list[tuple[str, int]]) -> Question:
    """Raises `TypeError` for fields of other types."""
    for what, value, types in (
        ("id", key, (str, int)),
        ("question", text, str),
        ("context", context, str),
        *(("text of an answer", answer, str) for answer, _ in answers),
        *(("answer_start", start, int) for _, start in answers),
    ):
        if not isinstance(value, types):
            raise TypeError(f"{what} is {value!r}")
    return Question(str(key), text, context, answers)


def read_hub_split(
    name: str, config: str, role: str, training: bool = False, bad_data: str = "stop"
) -> list[Question]:
    """
    The questions of a data set of the Hub, or of a local folder, in the layout of `rajpurkar/squad`: columns `id`,
    `context`, `question`, `answers` (`text`, `answer_start`). `role` is `"train"`, `"dev"` or `"test"`; where there is
    no test split the validation split serves. Raises `ValueError` for a split or column that is not there, and as
    [`QuestionReader`].
    """
    splits = get_dataset_split_names(name, config)
    split = next((split for split in HUB_SPLITS[role] if split in splits), None)
    if split is None:
        raise ValueError(f"{name} has no split {HUB_SPLITS[role][0]} of {config}; it has {', '.join(splits)}")
    where = f"{name}, {config}, {split}"
    with TemporaryDirectory() as cache:
        # `datasets` knows a folder by its name and README.md: it would give its rows of before they were mended.
        options = {"cache_dir": cache, "keep_in_memory": True} if Path(name).is_dir() else {}
        dataset = load_dataset(name, config, split=split, **options)
    if missing := {"id", "context", "question", "answers"} - set(dataset.column_names):
        found = ", ".join(dataset.column_names)
        raise ValueError(f"{where}: not in SQuAD's layout: it lacks {', '.join(sorted(missing))} and has {found}")
    reader = QuestionReader(where, training, bad_data)
    for number, row in enumerate(dataset):
        try:
            answers = list(zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True))
            reader.add(make_question(row["id"], row["question"], row["context"], answers))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{where}: not in SQuAD's layout in row {number} ({error!r})") from error
    return reader.finish()


# ---------------------------------------------------------------------------------------------------------------------
# Data sets of several pairs of languages
# ---------------------------------------------------------------------------------------------------------------------


def read_training_questions(sources: list[str], bad_data: str = "stop") -> list[Question]:
    """
    The questions of all sources together: files in SQuAD's layout, or names of the Hub, of which the training split
    is read. Raises as [`read_squad_file`] and [`read_hub_split`], and for a question id that two sources have.
    """
    together = QuestionReader(", ".join(sources), training=True, bad_data=bad_data)
    for source in sources:
        if source.endswith(".json"):
            questions = read_squad_file(Path(source), True, bad_data)
        else:
            questions = read_hub_split(source, only_config(source), "train", True, bad_data)
        for question in questions:
            together.add(question)
    return together.finish()


def hub_configs(name: str) -> list[str]:
    try:
        return get_dataset_config_names(name)
    except RuntimeError as error:
        raise ValueError(
            f"{name}: {error}; take a copy of it as Parquet (google/xtreme has MLQA's), or the files themselves"
        ) from error


def only_config(name: str) -> str:
    configs = hub_configs(name)
    if len(configs) > 1:
        raise ValueError(f"{name} has the configs {', '.join(configs)}: name a file, or a data set with one")
    return configs[0]


def read_question_sets(
    source: str,
    role: str,
    languages: list[str] | None = None,
    pairs: list[str] | None = None,
    bad_data: str = "stop",
) -> list[QuestionSet]:
    """
    The questions of a data set, by pairs of languages.

    Args:
        source (`str`): one of

            - the folder `MLQA_V1`, or one that holds it: files `{role}-context-{language}-question-{language}.json`; or
              its folder `dev` or `test`, or one of these files, of whatever role
            - a folder of parallel files `{name}.{language}.json`, as XQuAD's: questions of one, contexts of another,
              paired by the question's id; or one of these files
            - a file in SQuAD's layout, which is English
            - a name of the Hub (or a local folder of a data set): with configs `mlqa.{context}.{question}`, as
              `facebook/mlqa`, or with `MLQA`, as `google/xtreme`; `xquad.{language}`, as `google/xquad`; or one config,
              as `rajpurkar/squad`, in English
        role (`str`): `"dev"` or `"test"`.
        languages (`list[str]`, *optional*): all pairs of these.
        pairs (`list[str]`, *optional*): these, as `context-de.question-en`. Without either all that are there.
        bad_data (`str`): see [`QuestionReader`]; of parallel files also what to do about questions that one of them
            lacks.

    Raises `FileNotFoundError` for a file that is not there; `ValueError` for a pair of languages that is not there, a
    folder of another layout, files that are not parallel, and as [`read_squad_file`]; as `datasets` for a folder or name
    without data.
    """
    if languages and pairs:
        raise ValueError("pass --languages or --pairs, not both")
    wanted = [parse_key(key) for key in pairs or []]
    wanted = wanted or [(context, question) for context in languages or [] for question in languages or []]
    name, style, there = open_source(source, role)
    if missing := [pair for pair in wanted if pair not in there]:
        listed = ", ".join(language_key(*pair) for pair in missing)
        raise ValueError(
            f"{source} has no {role} questions of {listed}; it has {', '.join(language_key(*pair) for pair in there)}"
        )
    chosen = list(dict.fromkeys(wanted)) or list(there)
    return [QuestionSet(name, *pair, there[pair](bad_data), style) for pair in chosen]


def open_source(source: str, role: str):
    """
    Name of a data set, whose normalization it has, and for each pair (context language, question language) a
    function that reads it.
    """
    path = Path(source)
    name = path.resolve().name
    if path.is_dir():
        files = [file for depth in ("*", "*/*", "*/*/*") for file in sorted(path.glob(f"{depth}.json"))]
        if mlqa := [(file, match) for file in files if (match := MLQA_FILE.fullmatch(file.name))]:
            of_role = [(file, m) for file, m in mlqa if m["role"] == role]
            of_role = of_role or [(file, m) for file, m in mlqa if file.parent == path]
            found = {(m["context"], m["question"]): file_reader(file) for file, m in of_role}
            if not found:
                raise ValueError(f"{source} has no file {role}-context-LANGUAGE-question-LANGUAGE.json")
            return "mlqa", "mlqa", found
        files = [file for file in files if file.parent == path]
        if parallel := {m["language"]: file for file in files if (m := PARALLEL_FILE.fullmatch(file.name))}:
            if len({file.name.split(".")[0] for file in files}) > 1 or len(files) > len(parallel):
                raise ValueError(f"{path} has files of several data sets: {', '.join(file.name for file in files)}")
            name = files[0].name.split(".")[0]
            return (
                name,
                "squad",
                parallel_readers(parallel, lambda file, bad_data: read_squad_file(file, bad_data=bad_data)),
            )
        if files and not (path / "README.md").is_file():
            raise ValueError(
                f"{path}: neither MLQA_V1 (dev and test) nor parallel files *.LANGUAGE.json: name one of its files"
            )
    elif path.suffix == ".json":
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        if match := MLQA_FILE.fullmatch(path.name):
            return "mlqa", "mlqa", {(match["context"], match["question"]): file_reader(path)}
        match = PARALLEL_FILE.fullmatch(path.name)
        name, language = (match["name"], match["language"]) if match else (path.stem, "en")
        return name, "squad", {(language, language): file_reader(path)}

    configs = hub_configs(source)

    def hub_reader(config):
        return lambda bad_data: read_hub_split(source, config, role, bad_data=bad_data)

    if found := {config: match for config in configs if (match := MLQA_CONFIG.fullmatch(config))}:
        readers = {(match["context"], match["question"]): hub_reader(config) for config, match in found.items()}
        return name, "mlqa", readers
    if found := {match["language"]: config for config in configs if (match := XQUAD_CONFIG.fullmatch(config))}:
        return (
            name,
            "squad",
            parallel_readers(found, lambda config, bad_data: read_hub_split(source, config, role, bad_data=bad_data)),
        )
    return name, "squad", {("en", "en"): hub_reader(only_config(source))}


def file_reader(path: Path):
    return lambda bad_data: read_squad_file(path, bad_data=bad_data)


def parallel_readers(sources: dict, read):
    """Of the sources of each language, which `read` reads, questions of one on contexts of another, paired by id."""
    kept = {}

    def reader(context, question):
        def read_pair(bad_data):
            for language in (context, question):
                if language not in kept:
                    kept[language] = {one.id: one for one in read(sources[language], bad_data)}
            here, other = kept[context], kept[question]
            if alone := [key for key in [*here, *other] if key not in here or key not in other]:
                said = (
                    f"{sources[context]} and {sources[question]} are not parallel: {len(alone)} questions are in one "
                    f"only, {alone[0]} the first"
                )
                if bad_data == "stop":
                    raise ValueError(f"{said}. Mend the data, or leave these out with --bad_data skip")
                logger.warning(f"{said}; left out")
            both = [one for one in here.values() if one.id in other]
            return [Question(one.id, other[one.id].text, one.context, one.answers) for one in both]

        return read_pair

    return {(context, question): reader(context, question) for context in sources for question in sources}


def describe(sets: list[QuestionSet]) -> str:
    """How many questions there are, in a line."""
    counts = Counter()
    for one in sets:
        counts[one.name] += len(one.questions)
    pairs = Counter(one.name for one in sets)
    return ", ".join(
        f"{name}: {pairs[name]} pairs of languages, {number} questions" for name, number in counts.items()
    )


__all__ = [
    "Question",
    "QuestionSet",
    "describe",
    "language_key",
    "parse_key",
    "read_hub_split",
    "read_question_sets",
    "read_squad_file",
    "read_training_questions",
]
