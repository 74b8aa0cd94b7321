"""
Reads questions with their contexts (the passages that hold the answers), in the layouts of SQuAD, MLQA and XQuAD. A
pair of languages has a key: `context-de.question-en` are questions in English on contexts in German.
"""

import json
import logging
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from .files import BAD_CHARACTER, read_text
from .hub import read_configs, read_split, read_splits


logger = logging.getLogger(__name__)

KEY = re.compile(r"context-(?P<context>\w+)\.question-(?P<question>\w+)")
MLQA_FILE = re.compile(r"(?P<role>dev|test)-context-(?P<context>\w+)-question-(?P<question>\w+)\.json(\.gz)?")
MLQA_CONFIG = re.compile(r"(mlqa|MLQA)\.(?P<context>\w+)\.(?P<question>\w+)")
PARALLEL_FILE = re.compile(r"(?P<name>[^.]+)\.(?P<language>[a-z]{2})\.json(\.gz)?")
XQUAD_CONFIG = re.compile(r"xquad\.(?P<language>\w+)")
HUB_SPLITS = {"train": ("train",), "dev": ("validation", "dev"), "test": ("test", "validation")}
SQUAD_V2 = re.compile(r"v?2(\.\d+)*")


@dataclass
class Question:
    """
    Attributes:
        id, text, context (`str`).
        answers (`list[tuple[str, int]]`, *optional*): text of each answer, and the place of its first character in the
            context. Empty if the context does not answer the question (SQuAD v2.0); `None` if the data set does not
            give the answers (the test files of a leaderboard).
        may_lack_answer (`bool`, defaults to `False`): the data set is in the layout of SQuAD v2.0, which marks the
            questions that the context does not answer.
    """

    id: str
    text: str
    context: str
    answers: list[tuple[str, int]] | None
    may_lack_answer: bool = False


@dataclass
class QuestionSet:
    """
    Questions in one language on contexts in one language.

    Attributes:
        name (`str`): name of the data set, such as `mlqa`.
        context_language, question_language (`str`): codes, such as `de`.
        questions (`list[Question]`).
        answered_like (`str`): the rules that normalize the answers of the data set, `"mlqa"` or `"squad"`.
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
        """Question id to the texts of its answers. Only for a set with `has_answers`."""
        return {question.id: [text for text, _ in question.answers] for question in self.questions}

    @property
    def has_answers(self) -> bool:
        """Whether the data set gives the answers. Without answers predictions cannot be measured."""
        return all(question.answers is not None for question in self.questions)

    @property
    def unanswerable(self) -> int:
        """Number of questions that the context does not answer."""
        return sum(question.answers == [] for question in self.questions)

    @property
    def may_lack_answers(self) -> bool:
        """Whether some questions are unanswerable, or may be if the answers are not given."""
        return self.unanswerable > 0 or any(q.answers is None and q.may_lack_answer for q in self.questions)


def language_key(context_language: str, question_language: str) -> str:
    return f"context-{context_language}.question-{question_language}"


def parse_key(key: str) -> tuple[str, str]:
    """Returns the languages of context and question. Raises `ValueError` for anything but `context-de.question-en`."""
    if not (match := KEY.fullmatch(key)):
        raise ValueError(f"a pair of languages must be like context-de.question-en, got {key!r}")
    return match["context"], match["question"]


# ---------------------------------------------------------------------------------------------------------------------
# One file or split
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class QuestionReader:
    """
    Collects the questions of one file or split, and checks them.

    A question without answers is unanswerable if the data says so: `is_impossible` is true, or, in a data set with
    `empty_means_impossible`, its list of answers is empty. Other questions without answers are faults. In a test set
    where no question has an answer or a mark, the answers are unknown: `Question.answers` is `None` (logged).

    Args:
        where (`str`): the file or data set, for errors.
        training (`bool`): whether an answer must be at its offset. Tests compare only texts: a misplaced answer is
            kept and logged.
        bad_data (`str`, defaults to `"stop"`): `"stop"` raises an error that counts the faults and names the first of
            each kind; `"skip"` leaves faults out and logs the same. Faults are misplaced answers in training,
            questions without answers, ids that occur twice, contexts without a question, empty texts, and texts with a
            NUL character or a lone surrogate.
        empty_means_impossible (`bool`, defaults to `False`): whether an empty list of answers marks a question as
            unanswerable.

    [`QuestionReader.add`] takes the questions, [`QuestionReader.finish`] gives those that stay.
    """

    where: str
    training: bool
    bad_data: str = "stop"
    empty_means_impossible: bool = False
    questions: dict[str, Question] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    misplaced: list[str] = field(default_factory=list)
    unmarked: list[str] = field(default_factory=list)
    marked: int = 0

    def fault(self, kind: str, name: str):
        self.faults.setdefault(kind, []).append(name)

    def add(self, question: Question, impossible: bool | None, place: str):
        """
        Args:
            question (`Question`).
            impossible (`bool`, *optional*): mark of the question; `None` if it has none.
            place (`str`): place of the question in the file, for errors.
        """
        texts = (question.id, question.text, question.context, *(text for text, _ in question.answers))
        if any(map(BAD_CHARACTER.search, texts)):
            self.fault("questions with a NUL character or a lone surrogate", f"{place} (id {question.id!a})")
            return
        if question.id in self.questions:
            self.fault("question ids that occur more than once", question.id)
            return
        if not question.text.strip() or not question.context.strip():
            self.fault("questions that are empty or have an empty context", question.id)
            return
        if impossible:
            self.marked += 1
            question.answers = []
        elif not question.answers:
            question.answers = []
            if impossible is not None or not self.empty_means_impossible:
                self.unmarked.append(question.id)
        elif not self.check_places(question):
            return
        self.questions[question.id] = question

    def check_places(self, question: Question) -> bool:
        """Tells whether the question stays. In training it removes answers that are not at their offset."""
        here = [
            (text, at)
            for text, at in question.answers
            if text.strip() and at >= 0 and question.context[at : at + len(text)] == text
        ]
        if len(here) < len(question.answers):
            text, at = next(answer for answer in question.answers if answer not in here)
            found = question.context[max(at, 0) : max(at, 0) + len(text)]
            self.misplaced.append(f"{question.id} ({text!r}, there: {found!r})")
        if self.training:
            question.answers = here
        return bool(here) or not self.training

    def finish(self) -> list[Question]:
        """Gives the questions that stay. Raises `ValueError` for faults that are not skipped, or if none stays."""
        questions = list(self.questions.values())
        if questions and not (self.training or self.marked or any(question.answers for question in questions)):
            logger.warning(f"{self.where}: no question has an answer; predictions are written, nothing is measured")
            for question in questions:
                question.answers = None
        elif self.unmarked:
            self.faults["questions without an answer that are not marked is_impossible"] = self.unmarked
            unmarked = set(self.unmarked)
            questions = [question for question in questions if question.id not in unmarked]
        misplaced = {"questions with an answer that is not where its offset says": self.misplaced}
        faults = self.faults | misplaced if self.training else self.faults
        if found := describe_faults(faults):
            if self.bad_data == "stop":
                raise ValueError(f"{self.where}: {found}. Correct the data, or leave faults out with --bad_data skip")
            logger.warning(f"{self.where}: {found}; left out")
        if not self.training and self.misplaced:
            logger.warning(f"{self.where}: {describe_faults(misplaced)}; kept, as tests compare texts")
        if not questions:
            raise ValueError(f"{self.where} has no question")
        return questions


def describe_faults(faults: dict[str, list[str]]) -> str:
    return "; ".join(f"{len(names)} {kind}, {names[0]} the first" for kind, names in faults.items() if names)


def question_file(source: str) -> Path | None:
    """
    Returns the path of a JSON file, plain or `.gz`, or `None` for a folder or Hub name. Raises `FileNotFoundError` for
    a missing file and `ValueError` for another file.
    """
    path = Path(source)
    if not source.endswith((".json", ".json.gz")) or path.is_dir():
        if path.is_file():
            raise ValueError(f"{source} is not a file of questions: the name must end in .json or .json.gz")
        return None
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return path


def read_squad_file(path: Path, training: bool = False, bad_data: str = "stop") -> list[Question]:
    """
    Reads the questions of a JSON file, plain or `.gz`, in the layout of SQuAD v1.1 or v2.0. The `version` of the file
    (`"v2.0"`), or `is_impossible` of a question, says that questions may be unanswerable.

    Raises `ValueError` for a file that is not UTF-8 or not JSON, for another layout (names the place in the file), and
    in the cases of [`QuestionReader`].
    """
    try:
        data = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    place = "data"
    try:
        is_v2 = bool(SQUAD_V2.fullmatch(str(data.get("version"))))
        reader = QuestionReader(str(path), training, bad_data, empty_means_impossible=is_v2)
        for a, article in enumerate(data["data"]):
            place = f"data[{a}].paragraphs"
            for p, paragraph in enumerate(article["paragraphs"]):
                place = f"data[{a}].paragraphs[{p}]"
                context, asked = paragraph["context"], paragraph["qas"]
                if not asked:
                    reader.fault("contexts without a question", place)
                for q, qa in enumerate(asked):
                    place = f"data[{a}].paragraphs[{p}].qas[{q}]"
                    answers = [(answer["text"], answer["answer_start"]) for answer in qa.get("answers") or []]
                    impossible = qa.get("is_impossible")
                    question = make_question(qa["id"], qa["question"], context, answers, impossible)
                    question.may_lack_answer = is_v2 or impossible is not None
                    reader.add(question, impossible, place)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not in SQuAD's layout at {place} ({error!r})") from error
    return reader.finish()


def make_question(
    key: str | int, text: str, context: str, answers: list[tuple[str, int]], impossible: bool | None = None
) -> Question:
    """Makes a question. Raises `TypeError` for fields of other types."""
    for what, value, types in (
        ("id", key, (str, int)),
        ("question", text, str),
        ("context", context, str),
        ("is_impossible", impossible, (bool, type(None))),
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
    Reads the questions of a Hub data set, or of a local folder, in the layout of `rajpurkar/squad`: columns `id`,
    `context`, `question`, `answers` (`text`, `answer_start`), and optionally `is_impossible`. Without `is_impossible`,
    empty `answers` mark a question as unanswerable, as in `rajpurkar/squad_v2`. A test set may lack the column
    `answers`.

    Args:
        name, config (`str`): name and config of the data set.
        role (`str`): `"train"`, `"dev"` or `"test"`. Without a test split the validation split is read.
        training (`bool`, defaults to `False`), bad_data (`str`, defaults to `"stop"`): see [`QuestionReader`].

    Raises `ValueError` for a missing split or column, for files that do not parse, and in the cases of
    [`QuestionReader`].
    """
    splits = read_splits(name, config)
    split = next((split for split in HUB_SPLITS[role] if split in splits), None)
    if split is None:
        raise ValueError(f"{name} has no split {HUB_SPLITS[role][0]} of {config}; it has {', '.join(splits)}")
    where = f"{name}, {config}, {split}"
    dataset = read_split(name, config, split)
    columns = set(dataset.column_names)
    if missing := {"id", "context", "question", *(["answers"] if role != "test" else [])} - columns:
        found = ", ".join(dataset.column_names)
        raise ValueError(f"{where}: not in SQuAD's layout: it lacks {', '.join(sorted(missing))} and has {found}")
    has_marks = "is_impossible" in columns
    reader = QuestionReader(where, training, bad_data, empty_means_impossible=not has_marks)
    for number, row in enumerate(dataset):
        try:
            given = row.get("answers") or {"text": [], "answer_start": []}
            answers = list(zip(given["text"], given["answer_start"], strict=True))
            impossible = row.get("is_impossible")
            question = make_question(row["id"], row["question"], row["context"], answers, impossible)
            question.may_lack_answer = has_marks
            reader.add(question, impossible, f"row {number}")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{where}: not in SQuAD's layout in row {number} ({error!r})") from error
    return reader.finish()


# ---------------------------------------------------------------------------------------------------------------------
# Data sets of several pairs of languages
# ---------------------------------------------------------------------------------------------------------------------


def read_training_questions(sources: list[str], bad_data: str = "stop") -> list[Question]:
    """
    Reads the questions of all sources, source by source. Two sources may have the same ids, as the translations of one
    data set have. Questions that are the same in two sources are counted in the log.

    Args:
        sources (`list[str]`): JSON files in SQuAD's layout, or Hub names, whose training split is read.
        bad_data (`str`, defaults to `"stop"`): see [`QuestionReader`].

    Raises `FileNotFoundError` for a missing file, `ValueError` for a source that is named twice, and the errors of
    [`read_squad_file`] and [`read_hub_split`].
    """
    if twice := [source for source, number in Counter(sources).items() if number > 1]:
        raise ValueError(f"--train_data names {twice[0]} more than once")
    questions, seen, again = [], set(), 0
    for source in sources:
        if path := question_file(source):
            found = read_squad_file(path, True, bad_data)
        else:
            found = read_hub_split(source, only_config(source), "train", True, bad_data)
        contents = {(question.text, question.context) for question in found}
        again += len(contents & seen)
        seen |= contents
        questions += found
    if again:
        logger.warning(
            f"{', '.join(sources)}: {again} questions are the same in two of these sources and are trained on twice"
        )
    return questions


def only_config(name: str) -> str:
    configs = read_configs(name)
    if len(configs) > 1:
        raise ValueError(f"{name} has the configs {', '.join(configs)}: name a file, or a data set with one config")
    return configs[0]


def read_question_sets(
    source: str,
    role: str,
    languages: list[str] | None = None,
    pairs: list[str] | None = None,
    bad_data: str = "stop",
) -> list[QuestionSet]:
    """
    Reads the questions of a data set, by pairs of languages.

    Args:
        source (`str`): one of the following; files may be plain or `.gz`.

            - the folder `MLQA_V1`, or one that holds it: files `{role}-context-{language}-question-{language}.json`.
              Its folder `dev` or `test`, or one of these files, is read for either role.
            - a folder of parallel files `{name}.{language}.json`, such as XQuAD's. Questions in one language are
              paired with contexts in another by the question's id. Or one of these files.
            - a file in SQuAD's layout, in English
            - a Hub name, or the local folder of such a data set. Its configs may be `mlqa.{context}.{question}` (as in
              `facebook/mlqa`), `MLQA...` (as in `google/xtreme`), `xquad.{language}` (as in `google/xquad`), or one
              config in English (as in `rajpurkar/squad`).
        role (`str`): `"dev"` or `"test"`.
        languages (`list[str]`, *optional*): read all pairs of these languages.
        pairs (`list[str]`, *optional*): read these pairs, such as `context-de.question-en`. Without `languages` and
            `pairs` all pairs are read.
        bad_data (`str`, defaults to `"stop"`): see [`QuestionReader`]. A question that only one of two parallel files
            has is a fault too.

    Raises `FileNotFoundError` for a missing file. Raises `ValueError` for a missing pair of languages, a folder of
    another layout, files that are not parallel, development questions without answers, and in the cases of
    [`read_squad_file`]. Raises the errors of `datasets` for a folder or name without data.
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
    sets = [QuestionSet(name, *pair, there[pair](bad_data), style) for pair in chosen]
    if role == "dev" and (without := [one for one in sets if not one.has_answers]):
        raise ValueError(f"{source}: the questions of {without[0].key} have no answers; development needs answers")
    return sets


def open_source(source: str, role: str):
    """
    Gives the name of a data set, the style of its normalization, and for each pair (context language, question
    language) a function that reads it.
    """
    path = Path(source)
    name = path.resolve().name
    if path.is_dir():
        files = json_files(path)
        if mlqa := [(file, match) for file in files if (match := MLQA_FILE.fullmatch(file.name))]:
            of_role = [(file, m) for file, m in mlqa if m["role"] == role]
            of_role = of_role or [(file, m) for file, m in mlqa if file.parent == path]
            readers = {}
            for file, match in of_role:
                pair = (match["context"], match["question"])
                if pair in readers:
                    raise ValueError(
                        f"{source} has several {role} files of {language_key(*pair)}, {file} for instance"
                    )
                readers[pair] = file_reader(file)
            if not readers:
                raise ValueError(f"{source} has no file {role}-context-LANGUAGE-question-LANGUAGE.json")
            return "mlqa", "mlqa", readers
        files = [file for file in files if file.parent == path]
        if parallel := {m["language"]: file for file in files if (m := PARALLEL_FILE.fullmatch(file.name))}:
            if len({file.name.split(".")[0] for file in files}) > 1 or len(files) > len(parallel):
                raise ValueError(f"{path} has files of several data sets: {', '.join(file.name for file in files)}")
            return files[0].name.split(".")[0], "squad", parallel_readers(parallel, read_file)
        if files and not (path / "README.md").is_file():
            raise ValueError(
                f"{path}: neither MLQA_V1 (dev and test) nor parallel files *.LANGUAGE.json: name one of its files"
            )
    elif file := question_file(source):
        if match := MLQA_FILE.fullmatch(file.name):
            return "mlqa", "mlqa", {(match["context"], match["question"]): file_reader(file)}
        match = PARALLEL_FILE.fullmatch(file.name)
        name, language = match.group("name", "language") if match else (file.name.split(".json")[0], "en")
        return name, "squad", {(language, language): file_reader(file)}

    configs = read_configs(source)

    def read_config(config, bad_data):
        return read_hub_split(source, config, role, bad_data=bad_data)

    def config_reader(config):
        return lambda bad_data: read_config(config, bad_data)

    if found := {config: match for config in configs if (match := MLQA_CONFIG.fullmatch(config))}:
        readers = {(match["context"], match["question"]): config_reader(config) for config, match in found.items()}
        return name, "mlqa", readers
    if found := {match["language"]: config for config in configs if (match := XQUAD_CONFIG.fullmatch(config))}:
        return name, "squad", parallel_readers(found, read_config)
    return name, "squad", {("en", "en"): config_reader(only_config(source))}


def json_files(folder: Path) -> list[Path]:
    """Lists the JSON files of a folder and two levels below. Raises `ValueError` if one exists plain and as `.gz`."""
    depths = ("*", "*/*", "*/*/*")
    files = [
        file for depth in depths for file in sorted([*folder.glob(f"{depth}.json"), *folder.glob(f"{depth}.json.gz")])
    ]
    if both := [file for file in files if file.with_name(f"{file.name}.gz") in files]:
        raise ValueError(f"{both[0].parent} has both {both[0].name} and {both[0].name}.gz; remove one")
    return files


def read_file(path: Path, bad_data: str) -> list[Question]:
    return read_squad_file(path, bad_data=bad_data)


def file_reader(path: Path):
    return lambda bad_data: read_file(path, bad_data)


def parallel_readers(sources: dict, read):
    """
    Returns for each pair of languages a function that reads questions in one language and contexts in the other,
    paired by the question's id. `sources` maps a language to its source; `read` reads a source.
    """
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
                    raise ValueError(f"{said}. Correct the data, or leave these questions out with --bad_data skip")
                logger.warning(f"{said}; left out")
            return [replace(one, text=other[one.id].text) for one in here.values() if one.id in other]

        return read_pair

    return {(context, question): reader(context, question) for context in sources for question in sources}


def describe(sets: list[QuestionSet]) -> str:
    """Describes in one line the number of pairs and questions of each data set."""
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
