"""The web application: paths, checks and answers."""

import asyncio
import hmac
import math
import time
import uuid

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import __version__
from .batching import Batcher, QueueFullError, Scored, StoppingError
from .schemas import AnyRequest, Problem, RerankRequest, RerankResponse, TextResult, TextsRequest


PATHS = ("/v1/rerank", "/v2/rerank", "/rerank")
CLIENT_GONE = 499  # nginx's status; nobody reads it but the metrics
PROBLEMS = {
    401: "the API key is missing or wrong",
    408: "the request did not arrive within the time limit",
    413: "too many documents or too large a request",
    422: "a field is wrong; the answer names it",
    429: "the queue is full; try again after Retry-After seconds",
    500: "the model failed",
    503: "the server is stopping",
    504: "no answer within the time limit",
}


def problem(status: int, message: str, detail=None, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"message": message, "detail": detail or message}, status, headers)


class Gate:
    """
    Checks key and size of a request before its body is read, and counts requests. Lets other paths through.

    Args:
        app (`ASGIApp`): the application behind it.
        batcher (`Batcher`): has the metrics.
        api_key (`str`, *optional*): key that clients send as `Authorization: Bearer ...`; none is needed by default.
        max_bytes (`int`): largest body.
        timeout (`float`): seconds until the whole body must be there.
    """

    def __init__(self, app: ASGIApp, batcher: Batcher, api_key: str | None, max_bytes: int, timeout: float):
        self.app, self.metrics, self.max_bytes, self.timeout = app, batcher.metrics, max_bytes, timeout
        self.key = api_key.strip().encode() if api_key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send):
        if scope["type"] != "http" or scope["path"] not in PATHS:
            await self.app(scope, receive, send)
            return
        start, status, size, arrived = time.perf_counter(), 500, 0, False

        async def send_and_see(message: Message):
            nonlocal status
            status = message.get("status", status)
            await send(message)

        async def receive_limited() -> Message:
            nonlocal size, arrived
            left = None if arrived else self.timeout - (time.perf_counter() - start)
            try:
                message = await asyncio.wait_for(receive(), left)
            except asyncio.TimeoutError:
                raise HTTPException(408, PROBLEMS[408]) from None
            except asyncio.CancelledError:
                if arrived:
                    raise
                raise HTTPException(503, PROBLEMS[503], {"Retry-After": "1"}) from None  # the server's last seconds
            arrived = not message.get("more_body")
            size += len(message.get("body", b""))
            if size > self.max_bytes:
                raise HTTPException(413, self.too_large)
            return message

        try:
            if refused := self.refuse(dict(scope["headers"])):
                await refused(scope, receive, send_and_see)
            else:
                await self.app(scope, receive_limited, send_and_see)
        finally:
            self.metrics.requests.labels(scope["path"], status).inc()
            self.metrics.seconds.labels(scope["path"]).observe(time.perf_counter() - start)

    @property
    def too_large(self) -> str:
        return f"the request is larger than {self.max_bytes / 2**20:g} MiB"

    def refuse(self, headers: dict[bytes, bytes]) -> JSONResponse | None:
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if self.key and not (scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self.key)):
            return problem(401, PROBLEMS[401], headers={"WWW-Authenticate": "Bearer"})
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.max_bytes:
            return problem(413, self.too_large)
        return None


def make_app(
    batcher: Batcher,
    name: str,
    api_key: str | None = None,
    max_documents: int = 1000,
    max_bytes: int = 16 * 2**20,
    timeout: float = 60,
) -> FastAPI:
    """
    Makes the application of a model.

    Args:
        batcher (`Batcher`): scores the requests.
        name (`str`): the model's name in answers.
        api_key (`str`, *optional*): see [`Gate`].
        max_documents (`int`, defaults to 1000): most documents of a request.
        max_bytes (`int`, defaults to 16 MiB): largest body of a request.
        timeout (`float`, defaults to 60): seconds until a request that is not there gets status 408, and from then
            on seconds until one that is not answered gets status 504.
    """
    app = FastAPI(
        title="modeling_clir",
        version=__version__,
        description=f"Ranks documents for a query, across languages. Model: {name}",
        dependencies=[Depends(HTTPBearer(auto_error=False))] if api_key else [],  # for the page; the gate checks it
    )
    app.add_middleware(Gate, batcher=batcher, api_key=api_key, max_bytes=max_bytes, timeout=timeout)
    problems = {status: {"model": Problem, "description": text} for status, text in PROBLEMS.items()}

    async def score(request: Request, query: str, texts: list[str], limit: int | None = None) -> Scored:
        """Waits for the scores, for the time limit or for the client's end, whichever comes first."""
        if len(texts) > max_documents:
            raise HTTPException(413, f"{len(texts)} documents are more than {max_documents}")
        try:
            future = batcher.submit(query, texts, limit)
        except QueueFullError as error:
            raise HTTPException(429, str(error), {"Retry-After": str(error.seconds)}) from None
        except StoppingError as error:
            raise HTTPException(503, str(error), {"Retry-After": "1"}) from None
        scores, gone = asyncio.wrap_future(future), asyncio.create_task(disconnected(request))
        try:
            await asyncio.wait({scores, gone}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if scores.done():
                return scores.result()
            if gone.done():
                raise HTTPException(CLIENT_GONE, "the client went away")
            raise HTTPException(504, f"no answer within {timeout:g} s")
        except (HTTPException, asyncio.CancelledError):
            raise
        except Exception as error:
            raise HTTPException(500, f"the model failed: {' '.join(str(error).split())}") from error
        finally:
            gone.cancel()
            future.cancel()  # nothing, if it is done

    async def rank(request: Request, body: RerankRequest) -> RerankResponse:
        scored = await score(
            request, body.query, [document.text for document in body.documents], body.max_tokens_per_doc
        )
        hits = []
        for i in best_first(scored.scores)[: body.top_n]:
            document = {"document": body.documents[i].model_dump()} if body.return_documents else {}
            hits.append({"index": i, "relevance_score": scored.scores[i]} | document)
        meta = {"api_version": {"version": "2"}, "tokens": {"input_tokens": scored.tokens}}
        meta["warnings"] = warnings_of(scored, body) or None
        usage = {"prompt_tokens": scored.tokens, "total_tokens": scored.tokens}
        return RerankResponse(id=str(uuid.uuid4()), model=name, results=hits, meta=meta, usage=usage)

    def warnings_of(scored: Scored, body: RerankRequest) -> list[str]:
        """Names what was cut and what was not done."""
        encoder, counts, found = batcher.reranker.encoder, scored.counts, []
        if counts["queries_cut"]:
            found.append(f"the query was cut to {encoder.max_query_length} tokens")
        if counts["documents_cut"]:
            limit = f", a document at most {body.max_tokens_per_doc}" if body.max_tokens_per_doc else ""
            found.append(
                f"{counts['documents_cut']} documents were cut: a pair has at most {encoder.max_length} tokens{limit}"
            )
        if body.model not in (None, name):
            found.append(f"the model is {name}, not {body.model}")
        if unknown := sorted(key for key, value in (body.model_extra or {}).items() if value is not None):
            found.append(f"fields that this server does not know: {', '.join(unknown)}")
        return found

    @app.post("/v1/rerank", responses=problems, response_model_exclude_none=True)
    @app.post("/v2/rerank", responses=problems, response_model_exclude_none=True)
    async def rerank(request: Request, body: RerankRequest) -> RerankResponse:
        return await rank(request, body)

    @app.post("/rerank", responses=problems, response_model_exclude_none=True)
    async def rerank_in_either_form(request: Request, body: AnyRequest) -> RerankResponse | list[TextResult]:
        if not isinstance(body, TextsRequest):
            return await rank(request, body)
        scores = (await score(request, body.query, body.texts)).scores
        scores = scores if body.raw_scores else [sigmoid(value) for value in scores]
        return [
            TextResult(index=i, score=scores[i], text=body.texts[i] if body.return_text else None)
            for i in best_first(scores)
        ]

    @app.head("/health", include_in_schema=False)
    @app.get("/health", responses={503: problems[503]})
    async def health() -> dict[str, str]:
        """Tells that the server takes requests."""
        if batcher.stopping or not batcher.thread.is_alive():
            raise HTTPException(503, "the server is stopping")
        return {"status": "ok", "model": name}

    @app.head("/metrics", include_in_schema=False)
    @app.get("/metrics")
    async def metrics() -> Response:
        """Shows counts and times for Prometheus."""
        return Response(batcher.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.exception_handler(StarletteHTTPException)
    async def http_problem(request: Request, error: StarletteHTTPException) -> JSONResponse:
        if error.status_code == 400 and error.__cause__ is not None:  # FastAPI hides why it cannot read a body
            return problem(422, f"body: not JSON in UTF-8 ({' '.join(str(error.__cause__).split())})")
        return problem(error.status_code, error.detail, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def wrong_field(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = []
        for fault in error.errors():
            place = list(fault["loc"])[1:]  # after "body"
            if isinstance(error.body, bytes):
                fault["msg"], place = "the header Content-Type must be application/json", []
            elif fault["type"] == "json_invalid":
                fault["msg"], place = f"JSON decode error at character {place[0]}: {fault['ctx']['error']}", []
            elif request.url.path == PATHS[-1]:
                place = place[1:]  # after the form
            faults.append({"loc": place, "msg": fault["msg"], "type": fault["type"]})
        message = f"{'.'.join(map(str, faults[0]['loc'])) or 'body'}: {faults[0]['msg']}"
        return problem(422, message, faults)

    return app


def best_first(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda i: scores[i], reverse=True)  # stable: ties as they came


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


async def disconnected(request: Request):
    while (await request.receive())["type"] != "http.disconnect":
        pass


__all__ = ["Gate", "make_app"]
