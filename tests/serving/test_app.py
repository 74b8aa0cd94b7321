"""What the server answers: forms, mistakes, limits, a client that goes away, the end."""

import json
import math
import re
import socket
import threading
import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from .servers import Here, ask, half_a_request, in_background, wait_for


QUERY = "Wann wurde der Turm gebaut?"
DOCUMENTS = ["It was built in 1861.", "The harbour froze.", "Skarvholm lighthouse, a granite tower of 1866."]


@pytest.fixture
def here(reranker, request):
    server = Here(reranker, **getattr(request, "param", {}))
    yield server
    server.close()


@pytest.fixture
def url(here):
    here.go()
    return here.url


def test_the_common_form(url, reranker):
    expected = reranker.rank(QUERY, DOCUMENTS)
    documents = [DOCUMENTS[0], {"text": DOCUMENTS[1], "id": 7, "year": None}, {"text": DOCUMENTS[2]}]
    for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
        status, answer, _ = ask(url, {"query": QUERY, "documents": documents, "model": "tiny"}, path)
        assert status == 200 and answer["model"] == "tiny" and re.fullmatch(r"[0-9a-f-]{36}", answer["id"])
        assert [hit.keys() for hit in answer["results"]] == [{"index", "relevance_score"}] * 3
        assert [hit["index"] for hit in answer["results"]] == [hit["corpus_id"] for hit in expected]
        assert [hit["relevance_score"] for hit in answer["results"]] == [hit["score"] for hit in expected]
        tokens = sum(map(len, reranker.encoder([QUERY] * 3, DOCUMENTS)["input_ids"]))
        assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
        assert answer["meta"] == {"api_version": {"version": "2"}, "tokens": {"input_tokens": tokens}}
        body = {"query": QUERY, "documents": documents, "top_n": 2, "return_documents": True}
        _, answer, _ = ask(url, body, path)
        assert [hit["index"] for hit in answer["results"]] == [hit["corpus_id"] for hit in expected[:2]]
        for hit in answer["results"]:
            given = documents[hit["index"]]
            assert hit["document"].items() <= ({"text": given} if isinstance(given, str) else given).items()
            assert hit["document"]["text"] == DOCUMENTS[hit["index"]]
    assert ask(url, {"query": QUERY, "documents": []})[1]["results"] == []


def test_the_form_of_text_embeddings_inference(url, reranker):
    expected = reranker.rank(QUERY, DOCUMENTS)
    body = {"query": QUERY, "texts": DOCUMENTS, "truncate": True}
    status, hits, _ = ask(url, body | {"raw_scores": True, "return_text": True})
    assert status == 200
    assert hits == [{"index": hit["corpus_id"], "score": hit["score"], "text": hit["text"]} for hit in expected]
    _, hits, _ = ask(url, body)
    sigmoids = [1 / (1 + math.exp(-hit["score"])) for hit in expected]
    assert [hit["score"] for hit in hits] == pytest.approx(sigmoids) and "text" not in hits[0]


def test_what_was_not_done_is_said(url):
    body = {"query": "a " * 40, "documents": ["b " * 200, "b"], "model": "rerank-v3.5", "topn": 1}
    warnings = ask(url, body | {"priority": None})[1]["meta"]["warnings"]
    assert warnings == [
        "the query was cut to 30 tokens",
        "1 documents were cut: a pair has at most 128 tokens",
        "the model is tiny, not rerank-v3.5",
        "fields that this server does not know: topn",
    ]
    cut = ask(url, {"query": "a", "documents": ["b b b b b b", "b"], "max_tokens_per_doc": 2})[1]
    assert cut["meta"]["warnings"] == [
        "1 documents were cut: a pair has at most 128 tokens, a document at most 2",
    ]
    short = ask(url, {"query": "a", "documents": ["b b", "b"]})[1]
    assert cut["results"] == short["results"] and cut["usage"] == short["usage"]


MISTAKES = {
    "no query": ({"documents": ["a"]}, "query: Field required"),
    "no documents": ({"query": "a"}, "documents: Field required"),
    "a number": ({"query": 3, "documents": ["a"]}, "query: Input should be a valid string"),
    "a document without text": ({"query": "a", "documents": ["a", {"id": 1}]}, "documents.1.text: Field required"),
    "a number for a document": ({"query": "a", "documents": ["a", "b", 3]}, "documents.2: Input should be"),
    "no list": ({"query": "a", "documents": "a"}, "documents: Input should be a valid list"),
    "top_n": ({"query": "a", "documents": ["a"], "top_n": 0}, "top_n: Input should be greater than or equal to 1"),
    "max_tokens_per_doc": ({"query": "a", "documents": ["a"], "max_tokens_per_doc": "x"}, "max_tokens_per_doc: "),
    "half a character": (b'{"query": "a", "documents": ["b", "a \\ud83d"]}', "documents.1.*surrogates not allowed"),
    "half a character that would come back": (
        b'{"query": "a", "documents": ["b", {"text": "b", "x": ["\\ud83d"]}]}',
        "documents.1: .*surrogates not allowed",
    ),
    "half a character in the model": (b'{"query": "a", "documents": [], "model": "\\ud83d"}', "model: .*surrogates"),
    "half a character in a name": (b'{"query": "a", "documents": [], "\\ud83d": 1}', "body: .*unicode string"),
    "no number": (b'{"query": "a", "documents": [{"text": "b", "x": NaN}]}', "documents.0: .*not JSON compliant"),
    "too large a number": (b'{"query": "a", "documents": [{"text": "b", "x": 1e999}]}', "documents.0: .*not JSON"),
    "infinite top_n": (b'{"query": "a", "documents": ["a"], "top_n": Infinity}', "top_n: "),
    "a truth value for top_n": ({"query": "a", "documents": ["a"], "top_n": True}, "top_n: Input should be a valid"),
    "a fraction for top_n": ({"query": "a", "documents": ["a"], "top_n": 1.5}, "top_n: Input should be a valid"),
    "another encoding": ('{"query": "ä", "documents": ["a"]}'.encode("latin-1"), r"body: not JSON in UTF-8 \(.*0xe4"),
    "a long number": (b'{"query": "a", "documents": ["a"], "top_n": ' + b"9" * 5000 + b"}", "body: not JSON"),
    "nested deeply": (b'{"query": "a", "documents": ' + b"[" * 10**5 + b"]" * 10**5 + b"}", "body: not JSON"),
    "no JSON": (b'{"query": "a", "docu', "body: JSON decode error at character"),
    "no object": (["a"], "body: Input should be"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_name_the_field(name, url):
    body, message = MISTAKES[name]
    for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
        status, answer, _ = ask(url, body, path)
        assert status == 422 and re.match(message, answer["message"]), answer
        if name in ("no query", "a document without text", "top_n", "no JSON"):
            found = [".".join(map(str, fault["loc"])) or "body" for fault in answer["detail"]]
            assert found == [message.split(":")[0]]
    assert ask(url, {"query": "a", "texts": ["a", 3]})[1]["message"] == "texts.1: Input should be a valid string"


def test_other_paths_and_methods(url):
    assert ask(url, {"query": "a", "documents": ["a"]}, "/v3/rerank")[:2] == (
        404,
        {"message": "Not Found", "detail": "Not Found"},
    )
    assert ask(url, None, "/rerank")[0] == 405
    status, page, _ = ask(url, None, "/openapi.json")
    assert status == 200 and set(page["paths"]) == {"/v1/rerank", "/v2/rerank", "/rerank", "/health", "/metrics"}
    fields = page["components"]["schemas"]["RerankRequest"]["properties"]
    assert fields.keys() >= {"query", "documents", "top_n", "return_documents", "max_tokens_per_doc", "model"}
    assert {"type": "string"} in fields["documents"]["items"]["anyOf"]
    assert set(page["paths"]["/v1/rerank"]["post"]["responses"]) == {
        *("200", "401", "408", "413", "422", "429", "500", "503", "504")
    }
    assert "openapi.json" in ask(url, None, "/docs")[1]


@pytest.mark.parametrize("here", [{"max_documents": 3, "max_bytes": 2000}], indirect=True)
def test_size_limits(url):
    assert ask(url, {"query": "a", "documents": ["b"] * 3})[0] == 200
    for body in ({"query": "a", "documents": ["b"] * 4}, {"query": "a", "texts": ["b"] * 4}):
        assert ask(url, body)[:2] == (
            413,
            {"message": "4 documents are more than 3"} | {"detail": "4 documents are more than 3"},
        )
    status, answer, _ = ask(url, {"query": "a", "documents": ["b" * 3000]})
    assert status == 413 and answer["message"] == "the request is larger than 0.00190735 MiB"
    with socket.create_connection(url.removeprefix("http://").split(":")) as connection:  # without Content-Length
        head = (
            "POST /rerank HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        connection.sendall(head.encode() + b"bb8\r\n" + b"x" * 3000 + b"\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_is_not_said_to_be_json(url):
    body = {"query": "a", "documents": ["b"]}
    for kind in ("application/x-www-form-urlencoded", "text/plain", ""):  # curl's, when no header is given
        status, answer, _ = ask(url, body, Content_Type=kind)
        assert status == 422 and answer["message"] == "body: the header Content-Type must be application/json"
    assert ask(url, body, Content_Type="Application/JSON; charset=utf-8")[0] == 200


@pytest.mark.parametrize("here", [{"max_bytes": 2000, "api_key": "key"}], indirect=True)
def test_a_connection_goes_on_after_a_refusal(url):
    connection, good = (
        HTTPConnection(url.removeprefix("http://"), timeout=30),
        json.dumps({"query": "a", "documents": ["b"]}),
    )
    headers = {"Content-Type": "application/json", "Authorization": "Bearer key"}
    for body, sent, status in (
        (b"x" * 2**22, headers, 413),
        (iter([b"x" * 1000] * 5000), headers, 413),
        (b"x" * 1999, {}, 401),
        (good, headers, 200),
    ):
        connection.request("POST", "/v2/rerank", body, sent)
        answer = connection.getresponse()
        assert answer.status == status and json.loads(answer.read())
    connection.close()


@pytest.mark.parametrize("here", [{"timeout": 0.5}], indirect=True)
def test_a_slow_client(here):
    half = half_a_request(here.url, b"{}", missing=1)
    assert half.recv(1000).startswith(b"HTTP/1.1 408 ")
    half.close()
    body = json.dumps({"query": "a", "documents": ["b"]}).encode()
    here.go()
    slow = half_a_request(here.url, body, missing=1)
    slow.sendall(body[-1:])
    assert slow.recv(1000).startswith(b"HTTP/1.1 200 ")
    slow.close()


def test_a_slow_client_does_not_hold_up_the_end(here, monkeypatch):
    here.server.config.timeout_graceful_shutdown = 0.3
    here.go()
    slow = half_a_request(here.url, b"{}", missing=1)
    wait_for(lambda: here.server.server_state.tasks)
    here.stop()
    here.thread.join(10)
    assert not here.thread.is_alive() and slow.recv(1000).startswith(b"HTTP/1.1 503 ")
    slow.close()


def test_head_is_get_without_a_body(url):
    for path in ("/health", "/metrics"):
        connection = HTTPConnection(urlsplit(url).netloc, timeout=60)
        connection.request("HEAD", path)
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read() == b""
        connection.close()


@pytest.mark.parametrize("here", [{"api_key": "sécret"}], indirect=True)
def test_api_key(url):
    body = {"query": "a", "documents": ["b"]}
    for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "sécret"}, {"Authorization": "Bearer "}):
        for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
            status, answer, answered = ask(url, body, path, **{k: v.encode() for k, v in headers.items()})
            assert status == 401 and answered["www-authenticate"] == "Bearer" and "API key" in answer["message"]
    for scheme in ("Bearer", "bearer", "BEARER "):
        assert ask(url, body, Authorization=f"{scheme} sécret".encode())[0] == 200
    assert ask(url, None, "/health")[0] == ask(url, None, "/metrics")[0] == 200


@pytest.mark.parametrize("here", [{"max_queue": 4}], indirect=True)
def test_a_full_queue(here):
    body = {"query": "a", "documents": ["b"] * 4}
    first = in_background(ask, here.url, body)
    wait_for(lambda: here.batcher.waiting == 4)
    status, answer, headers = ask(here.url, body)
    assert status == 429 and headers["retry-after"] == "1" and "try again in 1 s" in answer["message"]
    here.go()
    assert first.result(60)[0] == 200
    wait_for(lambda: here.batcher.waiting == 0)
    assert ask(here.url, body)[0] == 200


@pytest.mark.parametrize("here", [{"timeout": 0.3}], indirect=True)
def test_time_limit(here):
    start = time.monotonic()
    status, answer, _ = ask(here.url, {"query": "a", "documents": ["b"] * 30})
    assert status == 504 and answer["message"] == "no answer within 0.3 s"
    assert 0.3 <= time.monotonic() - start < 10 and here.batcher.waiting == 0
    here.go(1)  # the batch that the model had
    here.go()
    assert ask(here.url, {"query": "a", "documents": ["b"]})[0] == 200


def test_a_client_that_goes_away_frees_its_place(here):
    body = json.dumps({"query": "a", "documents": ["b " * 90] * 50}).encode()
    stays = in_background(ask, here.url, {"query": "c", "documents": ["d"]})
    wait_for(lambda: here.batcher.waiting == 1)
    connection = half_a_request(here.url, body)
    wait_for(lambda: here.batcher.waiting == 51)
    connection.close()
    wait_for(lambda: here.batcher.waiting == 1)
    here.go()
    assert stays.result(60)[0] == 200
    assert sum(here.scored) <= 1 + 3  # the first batch may have had three of its rows
    gone = 'clir_requests_total{path="/rerank",status="499"} 1.0'
    wait_for(lambda: gone in ask(here.url, None, "/metrics")[1])


def test_stopping_finishes_what_is_there_and_refuses_the_rest(here):
    body = {"query": QUERY, "documents": DOCUMENTS}
    first = [in_background(ask, here.url, body) for _ in range(3)]
    wait_for(lambda: here.batcher.waiting == 9)
    here.stop()
    assert ask(here.url, None, "/health")[0] == 503
    status, answer, headers = ask(here.url, body)
    assert status == 503 and answer["message"] == "the server is stopping" and headers["retry-after"] == "1"
    time.sleep(0.3)
    assert here.thread.is_alive()
    here.go()
    assert [answered.result(60)[0] for answered in first] == [200] * 3
    here.thread.join(30)
    assert not here.thread.is_alive() and not here.batcher.thread.is_alive()
    with pytest.raises(OSError):
        ask(here.url, body)


def test_a_second_signal_stops_at_once(here):
    first = in_background(ask, here.url, {"query": "a", "documents": ["b"]})
    wait_for(lambda: here.batcher.waiting == 1)
    here.stop()
    here.stop()
    threading.Timer(1, here.go).start()  # closing the batcher waits for the batch that the model has
    here.thread.join(30)
    assert not here.thread.is_alive()
    assert first.exception(30) or first.result()[0] == 500  # its task was cancelled


def test_a_failing_model_answers_500_and_goes_on(url, here, reranker, monkeypatch):
    score = here.reranker.score_batch

    def fail(inputs):
        raise RuntimeError("out of\nmemory")

    here.reranker.score_batch = fail
    status, answer, _ = ask(url, {"query": "a", "documents": ["b"]})
    assert status == 500 and answer["message"] == "the model failed: out of memory"
    here.reranker.score_batch = score
    assert ask(url, {"query": "a", "documents": ["b"]})[0] == 200


def test_metrics(url):
    for body in ({"query": "a", "documents": ["b", "c"]}, {"query": "a"}):
        ask(url, body)
    status, text, headers = ask(url, None, "/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {(s.name, *s.labels.values()): s.value for f in text_string_to_metric_families(text) for s in f.samples}
    assert found["clir_requests_total", "/rerank", "200"] == found["clir_requests_total", "/rerank", "422"] == 1
    assert found["clir_pairs_total",] == 2 and found["clir_queue_pairs",] == 0
    assert found["clir_request_seconds_count", "/rerank"] == 2 and found["clir_batch_rows_sum",] == 2
    assert found["clir_tokens_total",] == 2 * 5 and found["clir_model_seconds_total",] > 0
