"""The requests and answers of the server: the form that Cohere, Jina and vLLM share, and that of TEI."""

import json
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag


def whole(text: str) -> str:
    """Raises `ValueError` for a lone surrogate (half an emoji, for instance), which JSON can hold."""
    text.encode()
    return text


Text = Annotated[str, AfterValidator(whole)]
Count = Annotated[int, Field(strict=True, ge=1)]  # strict: true is no number


class Document(BaseModel):
    """Its `text` is ranked. All of it comes back as it came if documents are asked for."""

    model_config = ConfigDict(extra="allow")

    text: Text


def as_document(value: Any) -> Any:
    """Raises `ValueError` for what could not come back: NaN, lone surrogates, and too deep a nesting."""
    if isinstance(value, dict) and value.keys() != {"text"}:
        try:
            whole(json.dumps(value, ensure_ascii=False, allow_nan=False))
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
    return {"text": value} if isinstance(value, str) else value


DocumentOrText = Annotated[Document, BeforeValidator(as_document, json_schema_input_type=str | Document)]


class RerankRequest(BaseModel):
    """Documents to rank for a query."""

    model_config = ConfigDict(extra="allow")  # unknown fields are named in the answer's warnings

    query: Text
    documents: list[DocumentOrText] = Field(description="texts, or objects with a text")
    model: Text | None = Field(None, description="not needed: a server has one model")
    top_n: Count | None = Field(None, description="so many of the best documents; default: all")
    return_documents: bool | None = Field(None, description="answer with the documents too")
    max_tokens_per_doc: Count | None = Field(None, description="longer documents are cut to so many tokens")


class TextsRequest(BaseModel):
    """The same in the form of text-embeddings-inference (TEI)."""

    query: Text
    texts: list[Text]
    raw_scores: bool = Field(False, description="logits; otherwise their sigmoid")
    return_text: bool = False


def form_of(value: Any) -> str:
    return "texts" if isinstance(value, dict) and "texts" in value else "documents"


AnyRequest = Annotated[
    Annotated[RerankRequest, Tag("documents")] | Annotated[TextsRequest, Tag("texts")], Discriminator(form_of)
]


class Result(BaseModel):
    index: int = Field(description="the document's place in the request")
    relevance_score: float = Field(description="the model's logit")
    document: dict[str, Any] | None = None


class Tokens(BaseModel):
    input_tokens: int


class ApiVersion(BaseModel):
    version: str


class Meta(BaseModel):
    api_version: ApiVersion
    tokens: Tokens
    warnings: list[str] | None = None


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class RerankResponse(BaseModel):
    id: str
    model: str
    results: list[Result] = Field(description="best first")
    meta: Meta
    usage: Usage


class TextResult(BaseModel):
    index: int
    score: float
    text: str | None = None


class Problem(BaseModel):
    """What every error answers."""

    message: str
    detail: Any = Field(description="the message, or for status 422 each fault with its place")


__all__ = ["AnyRequest", "Document", "Problem", "RerankRequest", "RerankResponse", "TextResult", "TextsRequest"]
