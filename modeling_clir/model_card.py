"""Writes the model cards of trained checkpoints."""

from importlib.resources import files
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers.utils import logging

from .configuration_bertlong import BertLongConfig
from .data.languages import card_languages, warn_of_cards


logger = logging.get_logger(__name__)


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


def card_data(base_model: str | None, languages: list[str], **values) -> tuple[ModelCardData, str | None]:
    """
    Makes the metadata of a card. Returns it with the name of the base model to show. The license is the base model's;
    so are the languages if none are given. A base model in a folder is not linked, because the Hub does not have it.
    """
    base = read_base_card(base_model)
    license = {name: base.get(name) for name in ("license", "license_name", "license_link") if base.get(name)}
    spoken = base.get("language") or []
    languages = languages or ([spoken] if isinstance(spoken, str) else spoken)
    warn_of_cards(languages)
    on_hub = base_model if base_model and not Path(base_model).exists() else None
    data = ModelCardData(
        language=card_languages(languages) or None, library_name="transformers", base_model=on_hub, **license, **values
    )
    return data, base_model if on_hub or base_model is None else Path(base_model).resolve().name


def write_model_card(
    folder: Path,
    name: str,
    base_model: str | None,
    sizes: dict[tuple[str, str], int],
    settings: dict[str, object],
    metrics: dict[str, float],
    max_length: int,
    model_type: str,
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
    """
    long = model_type == BertLongConfig.model_type
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
    data, base = card_data(
        base_model,
        languages,
        pipeline_tag="text-ranking" if reranks else "fill-mask",
        tags=["cross-lingual", *["reranker"] * reranks, *["bertlong"] * long],
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
        data,
        template_path=str(files("modeling_clir") / "templates" / "model_card.md"),
        name=name,
        base=base,
        license=data.get("license_name") or data.get("license"),
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
        model_type=model_type,
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
    languages: list[str],
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
    metadata, base = card_data(
        base_model,
        languages,
        pipeline_tag="question-answering",
        tags=["cross-lingual", *tags],
        model_name=name,
        eval_results=measured or None,
    )
    card = ModelCard.from_template(
        metadata,
        template_path=str(files("modeling_clir") / "templates" / "question_answering_card.md"),
        name=name,
        base=base,
        license=metadata.get("license_name") or metadata.get("license"),
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
