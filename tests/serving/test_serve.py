"""The program: its start, mistakes at the start, many clients at once, SIGTERM, a kill and a restart."""

import json
import os
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
import torch

from modeling_clir import serve
from modeling_clir.reranker import Reranker
from modeling_clir.serve import main

from ..helpers import texts
from .servers import ask, start


LENGTHS = ("--max_query_length", "30")


@pytest.fixture(scope="module")
def requests(tiny_reranker):
    """Requests, and what `Reranker` by itself gives for them in this process."""
    reranker = Reranker.from_pretrained(tiny_reranker, max_query_length=30)
    asked, expected = [], []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for i, query in enumerate(texts(0, 40, 6)):
        asked.append({"query": query, "documents": texts(100 + i, 1 + i % 9, 40)})
        hits = reranker.rank(query, asked[-1]["documents"])
        expected.append([(hit["corpus_id"], hit["score"]) for hit in hits])
    torch.set_num_threads(threads)
    return asked, expected


def results(answer: dict) -> list[tuple[int, float]]:
    return [(hit["index"], hit["relevance_score"]) for hit in answer["results"]]


@pytest.mark.slow
def test_many_clients_get_exact_scores_until_sigterm(tiny_reranker, requests):
    """
    Scores are those of the reranker in every digit. After the signal every answer is right, or says that it was not
    taken, and the program ends with code 0.
    """
    asked, expected = requests
    process, url = start(tiny_reranker, *LENGTHS, "--exact", "--api_key", "key")

    def ask_it(body):
        try:
            return ask(url, body, Authorization="Bearer key")[:2]
        except OSError:
            return 0, None  # it listens no more

    with ThreadPoolExecutor(12) as clients:
        answers = list(clients.map(ask_it, asked * 3))
        assert [status for status, _ in answers] == [200] * len(answers)
        assert [results(answer) for _, answer in answers] == expected * 3
        answers = clients.map(ask_it, asked * 8)
        first = next(answers)
        process.send_signal(signal.SIGTERM)
        answers = [first, *answers]
    assert process.wait(30) == 0
    process.stdout.close()
    statuses = [status for status, _ in answers]
    assert set(statuses) <= {200, 503, 0} and statuses[0] == 200 and statuses[-1] != 200
    for (status, answer), scores in zip(answers, expected * 8):
        assert status != 200 or results(answer) == scores


@pytest.mark.slow
def test_nothing_is_lost_when_the_server_is_killed_and_started_again(tiny_reranker, requests):
    asked, expected = requests
    process, url = start(tiny_reranker, *LENGTHS, "--exact")
    tries = []

    def ask_until_answered(body):
        for _ in range(600):
            tries.append(1)
            try:
                status, answer, _ = ask(url, body)
                if status == 200:
                    return results(answer)
            except (OSError, ValueError):
                pass  # refused, reset, or an answer that is cut
            time.sleep(0.1)
        raise AssertionError("no answer")

    with ThreadPoolExecutor(8) as clients:
        answers = clients.map(ask_until_answered, asked * 4)
        first = [next(answers) for _ in range(10)]
        process.kill()
        process.wait()
        process.stdout.close()
        process, again = start(tiny_reranker, *LENGTHS, "--exact", "--port", str(urlsplit(url).port))
        try:
            assert again == url and [*first, *answers] == expected * 4
        finally:
            process.terminate()
            assert process.wait(30) == 0
            process.stdout.close()
    assert len(tries) > len(asked) * 4


def wrong(monkeypatch, capsys, *options) -> str:
    """Runs the program with a mistake. Returns its one line."""
    monkeypatch.setattr(sys, "argv", ["serve", *map(str, options)])
    with pytest.raises(SystemExit) as stopped:
        main()
    printed = capsys.readouterr().err
    assert stopped.value.code == 2 and "Traceback" not in printed
    lines = [line for line in printed.splitlines() if line and not line.startswith("Loading weights")]
    assert len(lines) == 1, printed
    return lines[0].removeprefix("error: ")


def test_mistakes_at_the_start_are_one_line(tiny_reranker, tiny_bert, tmp_path, monkeypatch, capsys):
    mistakes = {
        (tmp_path / "missing",): "there is no",
        (tiny_reranker, "--port", "99999"): "--port must be 0 to 65535, got 99999",
        (tiny_reranker, "--timeout", "0"): "--timeout must be above 0 and finite, got 0.0",
        (tiny_reranker, "--max_megabytes", "inf"): "--max_megabytes must be above 0 and finite, got inf",
        (tiny_reranker, "--api_key", ""): "the key of --api_key or CLIR_API_KEY is empty",
        (tiny_reranker, "--max_documents", "x"): "argument --max_documents: invalid int value: 'x'",
        (
            tiny_reranker,
            "--max_tokens_pr_batch",
            "9",
        ): "there is no option --max_tokens_pr_batch; did you mean --max_tokens_per_batch",
        (tiny_reranker, "--host", "192.0.2.7", "--port", "0"): "--host 192.0.2.7 --port 0: ",
        (tiny_reranker, "--host", "no such host", "--port", "0"): "--host no such host --port 0: ",
        (tmp_path, "--port", "0"): "has no config.json",
        (tiny_reranker, "--port", "0", *LENGTHS, "--max_length", "999"): "max_length (999) is more than",
        (tiny_reranker, "--port", "0", "--dtype", "float13"): "argument --dtype: invalid choice: 'float13'",
    }
    (tmp_path / "weightless").mkdir()
    (tmp_path / "weightless/config.json").write_text(json.dumps({"model_type": "bertlong-xlr"}))
    mistakes[tmp_path / "weightless", "--port", "0"] = "tokenizer"
    for options, message in mistakes.items():
        assert message in wrong(monkeypatch, capsys, *options), options


def test_a_port_that_is_taken(tiny_reranker, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        line = wrong(monkeypatch, capsys, tiny_reranker, "--port", taken.getsockname()[1])
    assert "address already in use" in line


def test_a_missing_package_is_named(tiny_reranker, monkeypatch, capsys):
    monkeypatch.setattr(serve, "NEEDED", ("fastapi", "no_such_package"))
    assert "the server needs no_such_package: pip install" in wrong(monkeypatch, capsys, tiny_reranker)


def test_the_key_may_come_from_the_environment(monkeypatch, tiny_reranker):
    monkeypatch.setitem(os.environ, "CLIR_API_KEY", "one")
    assert serve.parse_arguments([str(tiny_reranker)]).api_key == "one"
    assert serve.parse_arguments([str(tiny_reranker), "--api_key", "two"]).api_key == "two"
