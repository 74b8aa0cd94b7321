"""Writes the model cards of trained checkpoints, from the facts of their runs."""

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from huggingface_hub import DatasetCard, EvalResult, ModelCard, ModelCardData
from jinja2 import Template
from transformers.utils import logging

from .configuration_bertlong import BertLongConfig
from .data.files import new_file
from .data.languages import card_languages, languages_of, warn_of_cards
from .names import may_be_on_hub


if TYPE_CHECKING:
    from .reranker import Reranker
    from .training.publishing import RunFacts

logger = logging.get_logger(__name__)

# The example of a card; what the model prints for it is on the card.
QUERY = "Wer entdeckte die Radioaktivität?"
DOCUMENTS = ("Henri Becquerel discovered radioactivity in 1896.", "Berlin is a city.")
MAIN_MEASURES = ("map", "rr_mrr", "qlm_accuracy", "f1")  # one number of a data set goes into `.eval_results`


def read_base_card(base_model: str | None) -> ModelCardData:
    """Reads the metadata of the base model's card, in its folder or on the Hub; empty if there is no card (logged)."""
    if base_model is None:
        return ModelCardData()
    folder = Path(base_model)
    try:
        return ModelCard.load(folder / "README.md" if folder.is_dir() else base_model).data
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        logger.warning(f"the card of the base model {base_model} cannot be read: the license is unknown ({reason})")
        return ModelCardData()


def inherited(base_model: str | None) -> tuple[dict[str, str], list[str], str | None]:
    """
    Returns what a card says of a base model: the license, for the metadata, the languages, and the name on the Hub. That
    of a folder is the base model on its own card.
    """
    base = read_base_card(base_model)
    license = {key: base.get(key) for key in ("license", "license_name", "license_link") if base.get(key)}
    linked = base_model
    if base_model and Path(base_model).exists():
        linked = base.get("base_model") if isinstance(base.get("base_model"), str) else None
    return license, languages_of(base.get("language")), linked


def write_conversion_card(folder: Path, name: str, source: str, kind: str):
    """Writes the card of a converted model, so that cards of what is trained from it know license and languages."""
    license, languages, linked = inherited(source)
    data = ModelCardData(language=card_languages(languages) or None, base_model=linked, **license)
    base = source if not Path(source).exists() else Path(source).resolve().name
    text = f"---\n{data}\n---\n\n# {name}\n\n{base}, converted to {kind} by `python -m modeling_clir.convert`.\n"
    ModelCard(text).save(folder / "README.md")


def describe_data(name: str) -> str:
    """Names a data set, and the license on its card if there is one."""
    folder, license = Path(name), None
    if (folder / "README.md").is_file() or on_hub([name]):
        try:
            data = DatasetCard.load(folder / "README.md" if folder.is_dir() else name).data
            license = data.get("license_name") or data.get("license")
        except (OSError, ValueError, yaml.YAMLError) as error:
            logger.warning(f"the card of {name} cannot be read ({str(error).splitlines()[0]})")
    return f"{folder.resolve().name if folder.exists() else name} ({license or 'no license stated'})"


def on_hub(names: list[str]) -> list[str]:
    """Keeps the names that are not files or folders here but may be on the Hub."""
    return [name for name in names if not Path(name).exists() and may_be_on_hub(name)]


def write_card(
    folder: Path,
    template: str,
    name: str,
    base_model: str | None,
    languages: list[str],
    results: list[EvalResult],
    facts: "RunFacts | None",
    metadata: dict,
    datasets: list[str] = (),
    **values,
) -> Path:
    """
    Writes `README.md` in a folder, and `.eval_results/results.yaml` for the results on data sets of the Hub.

    The license is that of the facts, or else the base model's; so are the languages if none are given. A base model in
    a folder is not linked, because the Hub does not have it.

    Args:
        folder (`Path`): folder of the checkpoint.
        template (`str`): name of the template; `run_card.md` follows it.
        name (`str`): name of the model.
        base_model (`str`, *optional*): folder or Hub name of the model that training started from.
        languages (`list[str]`): codes.
        results (`list[EvalResult]`): results for the metadata.
        facts (`RunFacts`, *optional*): facts of the run.
        metadata (`dict`): further metadata.
        datasets (`list[str]`): data of the training; those on the Hub are linked.
        values: values that the template shows.
    """
    license, spoken, linked = inherited(base_model)
    own = {"license": facts.license} if facts and facts.license else {}
    license = own or license
    named = languages or spoken
    warn_of_cards(named)
    if facts and facts.energy:
        metadata |= {"co2_eq_emissions": {"emissions": round(facts.energy[1] * 1000, 3), "source": "codecarbon"}}  # g
    data = ModelCardData(
        language=card_languages(named) or None,
        library_name="transformers",
        base_model=linked,
        datasets=on_hub(list(datasets)) or None,
        model_name=name,
        eval_results=results or None,
        **license,
        **metadata,
    )
    card = ModelCard.from_template(
        data,
        template_str=read_template(template) + read_template("run_card.md"),
        name=name,
        base=linked or (base_model and Path(base_model).resolve().name),
        license=data.get("license_name") or data.get("license"),
        license_of_base=not own,
        languages=", ".join(languages),
        facts=facts,
        **values,
    )
    card.save(folder / "README.md")
    write_eval_results(folder, results)
    return folder / "README.md"


def read_template(name: str) -> str:
    return files("modeling_clir").joinpath(f"templates/{name}").read_text(encoding="utf-8")


def write_eval_results(folder: Path, results: list[EvalResult]):
    """Writes the main measure of each data set that the Hub has as `.eval_results/results.yaml`."""
    path, entries = folder / ".eval_results/results.yaml", {}
    path.unlink(missing_ok=True)  # of an earlier run
    for result in results:
        place = (result.dataset_type, result.dataset_config or "default")
        if "/" in result.dataset_type and on_hub([result.dataset_type]) and result.metric_type in MAIN_MEASURES:
            entry = {"dataset": {"id": place[0], "task_id": place[1]}, "value": result.metric_value}
            entries.setdefault(place, entry | {"notes": f"{result.metric_type}, measured with modeling_clir"})
    if entries:
        with new_file(path) as file:
            yaml.safe_dump(list(entries.values()), file, sort_keys=False)


def ranking_example(reranker: "Reranker") -> list[str]:
    """Returns what the card's example prints."""
    hits = reranker.rank(QUERY, DOCUMENTS)
    return [f"{hit['score']:.2f}  {hit['text']}" for hit in hits]


def use_of_ranking(name: str, remote_code: bool, printed: list[str] | None, num_labels: int = 1) -> str:
    """Renders how to rank with a model: examples with their output. A `CrossEncoder` ranks with one label."""
    values = {"name": name, "remote_code": remote_code, "printed": printed, "query": QUERY, "documents": DOCUMENTS}
    return Template(read_template("use_ranking.md")).render(**values, num_labels=num_labels)


def markdown_rows(head: list[str], rows: list[list[str]]) -> list[str]:
    table = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return ["| " + " | ".join(row) + " |" for row in table]


def write_model_card(
    folder: Path,
    name: str,
    base_model: str | None,
    sizes: dict[tuple[str, str], int],
    settings: dict[str, object],
    metrics: dict[str, float],
    max_length: int,
    model_type: str,
    num_labels: int = 1,
    corpus: str | None = None,
    held_out: dict[tuple[str, str], int] | None = None,
    printed: list[str] | None = None,
    facts: "RunFacts | None" = None,
) -> Path:
    """
    Writes `README.md` for a pretrained checkpoint.

    Args:
        folder (`Path`): folder of the checkpoint.
        name (`str`): name of the model.
        base_model (`str`, *optional*): folder or Hub name of the model that training started from.
        sizes (`dict[tuple[str, str], int]`): (task, language pair) to the number of aligned sections; tasks are
            `"qlm"` and `"rr"`.
        settings (`dict`): hyperparameters to show.
        metrics (`dict[str, float]`): measures on held-out pairs, as `PretrainingTrainer.evaluate` names them.
        max_length (`int`): positions of the model.
        model_type (`str`): type of the model, as its configuration names it, such as `"bertlong"`.
        num_labels (`int`, defaults to 1): labels of the model; a `CrossEncoder` ranks with one.
        corpus (`str`, *optional*): folder or Hub name of the corpus.
        held_out (`dict[tuple[str, str], int]`, *optional*): as `sizes`, of the held-out pairs.
        printed (`list[str]`, *optional*): what the example prints, see [`ranking_example`].
        facts (`RunFacts`, *optional*): facts of the run.
    """
    long = model_type == BertLongConfig.model_type
    reranks = any(task == "rr" for task, _ in sizes)
    is_linked = corpus is not None and bool(on_hub([corpus]))
    results = [
        EvalResult(
            task_type="text-ranking",
            dataset_type=corpus if is_linked else "sections",
            dataset_name="held-out aligned sections",
            metric_type=key.removeprefix("eval_"),
            metric_value=round(value, 4),
        )
        for key, value in metrics.items()
        if key in ("eval_qlm_loss", "eval_qlm_accuracy", "eval_rr_accuracy", "eval_rr_mrr")
    ]
    columns = [
        (label, key)
        for label, key in (
            ("QLM loss", "eval_qlm_loss"),
            ("QLM accuracy", "eval_qlm_accuracy"),
            ("RR accuracy", "eval_rr_accuracy"),
            ("RR MRR", "eval_rr_mrr"),
        )
        if key in metrics
    ]
    rows = []
    for direction in [*sorted({key.rsplit("_", 1)[1] for key in metrics if "-" in key}), None]:
        keys = [key if direction is None else f"{key}_{direction}" for _, key in columns]
        rows.append([direction or "mean", *(f"{metrics[key]:.3f}" if key in metrics else "-" for key in keys)])
    return write_card(
        folder,
        "model_card.md",
        name,
        base_model,
        sorted({language for _, pair in sizes for language in pair.split("-")}),
        results,
        facts,
        {
            "pipeline_tag": "text-ranking" if reranks else "fill-mask",
            "tags": [
                "cross-lingual",
                *["reranker"] * reranks,
                *["sentence-transformers"] * (reranks and num_labels == 1),
                *["bertlong"] * long,
            ],
        },
        datasets=[corpus] if corpus else [],
        use=use_of_ranking(name, long, printed, num_labels),
        settings=settings,
        corpus=corpus and describe_data(corpus),
        data=[f"{task.upper()} {pair}: {size} aligned sections" for (task, pair), size in sizes.items()],
        held_out=[f"{task.upper()} {pair} {size} sections" for (task, pair), size in (held_out or {}).items()],
        tasks=" and ".join(
            text
            for task, text in (("qlm", "query language modelling (QLM)"), ("rr", "relevance ranking (RR)"))
            if any(name == task for name, _ in sizes)
        ),
        reranks=reranks,
        long=long,
        model_type=model_type,
        table=markdown_rows(["query-document", *(label for label, _ in columns)], rows) if columns else [],
        max_length=max_length,
    )


def write_ranking_card(
    folder: Path,
    name: str,
    base_model: str,
    languages: list[str],
    metrics: dict[str, dict],
    measures: list[str],
    data: list[str],
    settings: dict[str, object],
    protocol: str,
    max_length: int,
    long_documents: str,
    model_type: str,
    num_labels: int = 1,
    final: dict | None = None,
    printed: list[str] | None = None,
    facts: "RunFacts | None" = None,
) -> Path:
    """
    Writes `README.md` for finetuned rerankers.

    Args:
        folder (`Path`): output folder; holds the model if there is a `final` one.
        name (`str`): name of the model.
        base_model (`str`): folder or Hub name of the model that training started from.
        languages (`list[str]`): languages of queries and documents; the base model's if empty.
        metrics (`dict[str, dict]`): collection to its measures, see [`measure_folds`].
        measures (`list[str]`): measures to show.
        data (`list[str]`): a line for each collection.
        settings (`dict`): hyperparameters to show.
        protocol (`str`): how the results were made, in sentences.
        max_length (`int`): longest pair in tokens.
        long_documents (`str`): what becomes of a longer document, in a sentence.
        model_type (`str`): type of the model.
        num_labels (`int`, defaults to 1): labels of the model; a `CrossEncoder` ranks with one.
        final (`dict`, *optional*): of a model of all queries: numbers of `training` and `development` queries, best
            `epoch` and its `precision` (MAP).
        printed (`list[str]`, *optional*): what the example prints, see [`ranking_example`].
        facts (`RunFacts`, *optional*): facts of the run.
    """
    long = model_type == BertLongConfig.model_type
    results = [
        EvalResult(
            task_type="text-ranking",
            dataset_type=collection,
            dataset_name=collection,
            metric_type=measure.lower().replace("@", "_at_"),
            metric_value=round(found[measure], 4),
            metric_name=measure,
        )
        for collection, found in metrics.items()
        for measure in measures
    ]
    rows = []
    for collection, found in metrics.items():
        parts = {"first stage": found.get("first_stage"), "reranker alone": found.get("reranker")}
        titles = {f"{collection}, {row}": part for row, part in parts.items() if part}
        for title, part in (titles | {f"{collection}, both" if titles else collection: found}).items():
            rows.append([title, str(found["queries"]), *(f"{part[measure]:.4f}" for measure in measures)])
    return write_card(
        folder,
        "ranking_card.md",
        name,
        base_model,
        languages,
        results,
        facts,
        {
            "pipeline_tag": "text-ranking",
            "tags": [
                *("cross-lingual", "reranker"),
                *["sentence-transformers"] * (final is not None and num_labels == 1),
                *["bertlong"] * long,
            ],
        },
        use=use_of_ranking(name, long, printed, num_labels),
        settings=settings,
        data=data,
        table=markdown_rows(["collection", "queries", *measures], rows),
        protocol=protocol,
        final=final,
        max_length=max_length,
        long_documents=long_documents,
    )


def write_question_answering_card(
    folder: Path,
    name: str,
    base_model: str | None,
    languages: list[str],
    results: dict[str, list[dict]],
    tables: dict[str, str],
    data: str,
    settings: dict[str, object],
    selection: str,
    max_length: int,
    tags: list[str],
    datasets: list[str] = (),
    test_data: list[str] = (),
    printed: str | None = None,
    facts: "RunFacts | None" = None,
) -> Path:
    """
    Writes `README.md` for a checkpoint that answers questions.

    Args:
        folder (`Path`): folder of the checkpoint.
        name (`str`): name of the model.
        base_model (`str`, *optional*): folder or Hub name of the model that training started from.
        languages (`list[str]`): languages of questions and contexts; the base model's if empty.
        results (`dict[str, list[dict]]`): data set to `context`, `question`, `F1`, `EM` of each pair of languages.
        tables (`dict[str, str]`): data set to its results in Markdown.
        data (`str`): training data, in a sentence.
        settings (`dict`): hyperparameters to show.
        selection (`str`): epochs of the results, in a sentence.
        max_length (`int`): longest window in tokens.
        tags (`list[str]`): further tags.
        datasets (`list[str]`, defaults to none): names of the training data.
        test_data (`list[str]`, defaults to none): names of the test data.
        printed (`str`, *optional*): what the example prints.
        facts (`RunFacts`, *optional*): facts of the run.
    """
    names = {source.rsplit("/", 1)[-1]: source for source in on_hub(list(test_data))}
    measured = [
        EvalResult(
            task_type="question-answering",
            dataset_type=names.get(dataset, dataset),
            dataset_name=dataset,
            dataset_config=f"context-{result['context']}.question-{result['question']}",
            metric_type={"F1": "f1", "EM": "exact_match"}[measure],
            metric_value=round(result[measure], 2),
        )
        for dataset, of_set in results.items()
        for result in of_set
        for measure in ("F1", "EM")
    ]
    numbers = [
        f"{dataset} {result['context']}-{result['question']} {result['questions']}"
        for dataset, of_set in results.items()
        for result in of_set
        if "questions" in result
    ]
    return write_card(
        folder,
        "question_answering_card.md",
        name,
        base_model,
        languages,
        measured,
        facts,
        {"pipeline_tag": "question-answering", "tags": ["cross-lingual", *tags]},
        datasets=datasets,
        data=data,
        settings=settings,
        tables=tables,
        numbers=numbers,
        selection=selection,
        max_length=max_length,
        question=QUERY,
        context=DOCUMENTS[0],
        printed=printed,
    )


__all__ = [
    "DOCUMENTS",
    "QUERY",
    "describe_data",
    "ranking_example",
    "write_model_card",
    "write_question_answering_card",
    "write_ranking_card",
]
