"""Model cards of what is trained here."""

from importlib.resources import files
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from .data.languages import card_languages


def write_model_card(
    folder: Path,
    name: str,
    base_model: str | None,
    sizes: dict[tuple[str, str], int],
    settings: dict[str, object],
    metrics: dict[str, float],
    max_length: int,
    long: bool,
) -> Path:
    """
    Writes `README.md` for a pretrained checkpoint.

    Args:
        folder (`Path`): the checkpoint.
        name (`str`): its name.
        base_model (`str`, *optional*): what it was trained from.
        sizes (`dict[tuple[str, str], int]`): aligned sections of each task (`"qlm"`, `"rr"`) and language pair.
        settings (`dict`): the hyperparameters to show.
        metrics (`dict[str, float]`): of the held-out pairs, as `XLRetrievalTrainer.evaluate` names them.
        max_length (`int`): positions of the model.
        long (`bool`): is it a BertLong, rather than a plain BERT?
    """
    languages = sorted({language for _, pair in sizes for language in pair.split("-")})
    reranks = any(task == "rr" for task, _ in sizes)
    results = [
        EvalResult(
            task_type="text-ranking",
            dataset_type="sections",
            dataset_name="held-out aligned sections",
            metric_type=key.removeprefix("eval_"),
            metric_value=round(value, 4),
        )
        for key, value in metrics.items()
        if key in ("eval_qlm_loss", "eval_qlm_accuracy", "eval_rr_accuracy", "eval_rr_mrr")
    ]
    # A folder on somebody's disk is no model of the Hub.
    on_hub = base_model if base_model and not Path(base_model).exists() else None
    card_data = ModelCardData(
        language=card_languages(languages) or None,
        library_name="transformers",
        pipeline_tag="text-ranking" if reranks else "fill-mask",
        tags=["cross-lingual", *["reranker"] * reranks, *["bertlong"] * long],
        base_model=on_hub,
        model_name=name,
        eval_results=results or None,
    )
    directions = sorted({key.rsplit("_", 1)[1] for key in metrics if "-" in key})
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
    table = [["query-document", *(label for label, _ in columns)], ["---"] + ["---:"] * len(columns)]
    for direction in [*directions, None]:
        keys = [key if direction is None else f"{key}_{direction}" for _, key in columns]
        table.append([direction or "mean", *(f"{metrics[key]:.3f}" if key in metrics else "-" for key in keys)])
    card = ModelCard.from_template(
        card_data,
        template_path=str(files("modeling_clir") / "templates" / "model_card.md"),
        name=name,
        base=Path(base_model).name if base_model and not on_hub else base_model,
        languages=", ".join(languages),
        settings=settings,
        data=[f"{task.upper()} {pair}: {size} aligned sections" for (task, pair), size in sizes.items()],
        tasks=" and ".join(
            text
            for task, text in (("qlm", "query language modelling (QLM)"), ("rr", "relevance ranking (RR)"))
            if any(name == task for name, _ in sizes)
        ),
        reranks=reranks,
        long=long,
        table=["| " + " | ".join(row) + " |" for row in table] if columns else [],
        max_length=max_length,
    )
    path = folder / "README.md"
    card.save(path)
    return path


def write_question_answering_card(
    folder: Path,
    name: str,
    base_model: str | None,
    results: dict[str, list[dict]],
    tables: dict[str, str],
    data: str,
    settings: dict[str, object],
    selection: str,
    max_length: int,
    tags: list[str],
) -> Path:
    """
    Writes `README.md` for a checkpoint that answers questions.

    Args:
        folder (`Path`): the checkpoint.
        name (`str`): its name.
        base_model (`str`, *optional*): what it was trained from.
        results (`dict[str, list[dict]]`): of each data set, for each pair of languages `context`, `question`, `F1`, `EM`.
        tables (`dict[str, str]`): of each data set, the results in Markdown.
        data (`str`): what it was trained on, in a sentence.
        settings (`dict`): the hyperparameters to show.
        selection (`str`): which epochs the results are of, in a sentence.
        max_length (`int`): longest window in tokens.
        tags (`list[str]`).
    """
    measured = [
        EvalResult(
            task_type="question-answering",
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_config=f"context-{result['context']}.question-{result['question']}",
            metric_type={"F1": "f1", "EM": "exact_match"}[measure],
            metric_value=round(result[measure], 2),
        )
        for dataset, of_set in results.items()
        for result in of_set
        for measure in ("F1", "EM")
    ]
    on_hub = base_model if base_model and not Path(base_model).exists() else None
    languages = sorted({r[side] for of_set in results.values() for r in of_set for side in ("context", "question")})
    card_data = ModelCardData(
        language=card_languages(languages) or None,
        library_name="transformers",
        pipeline_tag="question-answering",
        tags=["cross-lingual", *tags],
        base_model=on_hub,
        model_name=name,
        eval_results=measured or None,
    )
    card = ModelCard.from_template(
        card_data,
        template_path=str(files("modeling_clir") / "templates" / "question_answering_card.md"),
        name=name,
        base=Path(base_model).name if base_model and not on_hub else base_model,
        data=data,
        settings=settings,
        tables=tables,
        selection=selection,
        max_length=max_length,
    )
    path = folder / "README.md"
    card.save(path)
    return path


__all__ = ["write_model_card", "write_question_answering_card"]
