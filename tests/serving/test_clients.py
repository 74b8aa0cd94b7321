"""
Clients that others wrote, against a real server: Cohere's, and the rerank classes of LangChain and LlamaIndex. Those two
need an older cohere than the newest; their tests run where they are installed:

    pip install langchain-cohere langchain-community llama-index-postprocessor-cohere-rerank \
        llama-index-postprocessor-jinaai-rerank
"""

import asyncio

import pytest

from .servers import running


KEY = "a key"
QUERY = "Wann wurde der Turm gebaut?"
DOCUMENTS = ["It was built in 1861.", "The harbour froze.", "Skarvholm lighthouse, a granite tower of 1866."]


@pytest.fixture(scope="module")
def url(tiny_reranker):
    with running(tiny_reranker, "--max_query_length", "30", "--api_key", KEY) as url:
        yield url


@pytest.fixture(scope="module")
def expected(reranker):
    """Places and scores, best first."""
    return [(hit["corpus_id"], pytest.approx(hit["score"], abs=1e-4)) for hit in reranker.rank(QUERY, DOCUMENTS)]


def pairs(response) -> list[tuple[int, float]]:
    return [(hit.index, hit.relevance_score) for hit in response.results]


@pytest.fixture(scope="module")
def cohere():
    return pytest.importorskip("cohere")


@pytest.mark.parametrize("version", ["Client", "ClientV2"])
def test_cohere(version, cohere, url, expected):
    client = getattr(cohere, version)(KEY, base_url=url)
    response = client.rerank(model="tiny-reranker", query=QUERY, documents=DOCUMENTS)
    assert pairs(response) == expected and response.id and not response.meta.warnings
    assert response.meta.tokens.input_tokens > 30
    limit = {"max_tokens_per_doc": 2} if version == "ClientV2" else {"return_documents": True}
    response = client.rerank(model="tiny-reranker", query=QUERY, documents=DOCUMENTS, top_n=1, **limit)
    if version == "ClientV2":
        assert len(response.results) == 1 and "cut" in response.meta.warnings[0]
    else:
        assert pairs(response) == expected[:1] and response.results[0].document.text == DOCUMENTS[expected[0][0]]
    response = client.rerank(model="another", query=QUERY, documents=DOCUMENTS)
    assert response.meta.warnings == ["the model is tiny-reranker, not another"]


def test_cohere_with_objects(cohere, url, expected):
    client = cohere.Client(KEY, base_url=url)
    documents = [{"text": text} for text in DOCUMENTS]
    assert pairs(client.rerank(model="tiny-reranker", query=QUERY, documents=documents)) == expected


def test_cohere_asynchronously(cohere, url, expected):
    async def ask_many():
        async with cohere.AsyncClientV2(KEY, base_url=url) as client:
            asked = (client.rerank(model="m", query=QUERY, documents=DOCUMENTS) for _ in range(20))
            return await asyncio.gather(*asked)

    assert [pairs(response) for response in asyncio.run(ask_many())] == [expected] * 20


def test_errors_reach_coheres_client(cohere, url):
    with pytest.raises(cohere.UnauthorizedError, match="API key"):
        cohere.ClientV2("wrong", base_url=url).rerank(model="m", query="a", documents=["b"])
    with pytest.raises(cohere.UnprocessableEntityError, match=r"documents\.1: Input should be"):
        cohere.ClientV2(KEY, base_url=url).rerank(model="m", query="a", documents=["b", 3])


def test_cohere_in_langchain(url, expected):
    rerank = pytest.importorskip("langchain_cohere").CohereRerank
    from langchain_core.documents import Document

    compressor = rerank(cohere_api_key=KEY, base_url=url, model="tiny-reranker", top_n=2)
    given = [Document(page_content=text, metadata={"place": i}) for i, text in enumerate(DOCUMENTS)]
    found = compressor.compress_documents(given, QUERY)
    assert [(one.metadata["place"], one.metadata["relevance_score"]) for one in found] == expected[:2]
    assert [one.page_content for one in found] == [DOCUMENTS[place] for place, _ in expected[:2]]
    assert [(one["index"], one["relevance_score"]) for one in compressor.rerank(DOCUMENTS, QUERY, top_n=3)] == expected


def test_jina_in_langchain(url, expected, monkeypatch):
    jina = pytest.importorskip("langchain_community.document_compressors.jina_rerank")
    monkeypatch.setattr(jina, "JINA_API_URL", f"{url}/v1/rerank")  # it has no option for the address
    compressor = jina.JinaRerank(jina_api_key=KEY, top_n=2)
    found = compressor.rerank(DOCUMENTS, QUERY)
    assert [(one["index"], one["relevance_score"]) for one in found] == expected[:2]
    with pytest.raises(RuntimeError, match="API key"):
        jina.JinaRerank(jina_api_key="wrong").rerank(DOCUMENTS, QUERY)


@pytest.mark.parametrize("name", ["cohere_rerank.CohereRerank", "jinaai_rerank.JinaRerank"])
def test_llama_index(name, url, expected):
    module, _, rerank = name.partition(".")
    rerank = getattr(pytest.importorskip(f"llama_index.postprocessor.{module}"), rerank)
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=text, id_=str(i)), score=0.5) for i, text in enumerate(DOCUMENTS)]
    base = url if "cohere" in module else f"{url}/v1"
    found = rerank(api_key=KEY, base_url=base, model="tiny-reranker", top_n=2).postprocess_nodes(
        nodes, query_str=QUERY
    )
    assert [(int(one.node.node_id), one.score) for one in found] == expected[:2]
