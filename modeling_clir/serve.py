"""
Serves a reranker over HTTP.

    python -m modeling_clir.serve output/clir-bertlong
    curl http://127.0.0.1:8000/rerank -H "Content-Type: application/json" \\
        -d '{"query": "Wann wurde der Turm gebaut?", "documents": ["It was built in 1861.", "The harbour froze."]}'

The clients of Cohere, Jina, vLLM and text-embeddings-inference work with it: POST /v1/rerank, /v2/rerank, /rerank.
GET /health, /metrics (Prometheus), /docs (OpenAPI). SIGTERM stops it when the requests that it has are answered.
"""

import argparse
import math
import os
import socket
from importlib.util import find_spec
from pathlib import Path

from .names import check_name
from .program import Parser, fix_rounding, run_program, share_cores


NEEDED = ("fastapi", "uvicorn", "prometheus_client")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="python -m modeling_clir.serve", description=__doc__)
    parser.add_argument("model", help="folder or Hub name of a reranker")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s); 0.0.0.0 for all")
    parser.add_argument("--port", type=int, default=8000, help="(%(default)s); 0 for a free one, which is printed")
    parser.add_argument("--api_key", help="key that clients must send; default: CLIR_API_KEY, or none is needed")
    parser.add_argument("--max_length", type=int, help="longest pair in tokens; default: what the model takes")
    parser.add_argument("--max_query_length", type=int, default=128, help="longest query in tokens (%(default)s)")
    parser.add_argument(
        "--long_documents",
        choices=("truncate", "maxp"),
        default="truncate",
        help="cut a long document, or take the best score of its passages (%(default)s)",
    )
    parser.add_argument("--max_tokens_per_batch", type=int, default=8192, help="(%(default)s)")
    parser.add_argument(
        "--exact",
        action="store_true",
        help="a batch has documents of one request: scores do not depend on other clients in any digit",
    )
    parser.add_argument("--max_documents", type=int, default=1000, help="most documents of a request (%(default)s)")
    parser.add_argument("--max_megabytes", type=float, default=16, help="largest request in MiB (%(default)s)")
    parser.add_argument("--max_queue", type=int, default=4096, help="most documents that wait (%(default)s)")
    parser.add_argument("--timeout", type=float, default=60, help="seconds until a request fails (%(default)s)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16", "int8"), help="default: float32 on a CPU"
    )
    parser.add_argument("--device", help="such as cuda:1 or cpu; default: the first GPU, if there is one")
    parser.add_argument("--revision", help="of a model on the Hub")
    arguments = parser.parse_args(argv)
    for name in ("max_tokens_per_batch", "max_documents", "max_megabytes", "max_queue", "timeout"):
        if not 0 < getattr(arguments, name) < math.inf:
            raise ValueError(f"--{name} must be above 0 and finite, got {getattr(arguments, name)}")
    if not 0 <= arguments.port < 2**16:
        raise ValueError(f"--port must be 0 to 65535, got {arguments.port}")
    if arguments.api_key is None:
        arguments.api_key = os.environ.get("CLIR_API_KEY")
    if arguments.api_key is not None and not arguments.api_key.strip():  # such as a variable that is not set
        raise ValueError("the key of --api_key or CLIR_API_KEY is empty: everybody could send it")
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ImportError(f'the server needs {", ".join(missing)}: pip install "modeling-clir[serve]"')
    check_name(arguments.model, "model")
    return arguments


def bind(host: str, port: int) -> socket.socket:
    """Takes the port, without listening yet. Raises `OSError` that names host and port."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise OSError(f"--host {host} --port {port}: {error.strerror.lower()}") from None
    return listener


def serve(arguments: argparse.Namespace):
    listener = bind(arguments.host, arguments.port)
    share_cores()
    fix_rounding()
    import torch

    from .data.files import folder_name
    from .exported import find_graph
    from .reranker import Reranker
    from .serving.app import make_app
    from .serving.batching import Batcher
    from .serving.server import Server

    device = arguments.device
    if device is None:  # an export computes on a CPU
        on_gpu = torch.cuda.is_available() and not find_graph(arguments.model, revision=arguments.revision)
        device = "cuda" if on_gpu else "cpu"
    options = {"dtype": arguments.dtype, "revision": arguments.revision}
    options |= {"device_map": device} if device != "cpu" else {}
    reranker = Reranker.from_pretrained(
        arguments.model,
        arguments.max_length,
        arguments.max_query_length,
        arguments.max_tokens_per_batch,
        arguments.long_documents,
        **{name: value for name, value in options.items() if value is not None},
    )
    batcher = Batcher(reranker, arguments.max_queue, arguments.exact)
    name = folder_name(Path(arguments.model)) if Path(arguments.model).is_dir() else arguments.model
    app = make_app(
        batcher,
        name,
        arguments.api_key,
        arguments.max_documents,
        int(arguments.max_megabytes * 2**20),
        arguments.timeout,
    )
    host, port = listener.getsockname()[:2]
    Server(app, batcher, f"serving {name} on http://{f'[{host}]' if ':' in host else host}:{port}").run([listener])


def main(argv: list[str] | None = None):
    run_program(lambda: serve(parse_arguments(argv)))


if __name__ == "__main__":
    main()
