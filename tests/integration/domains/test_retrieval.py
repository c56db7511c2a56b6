"""Retrieval by words, by meaning, and by both, with the packaged embedding model."""

from __future__ import annotations

import pytest
from langchain_core.documents import Document

from cowest_graph.domains import Example

bm25s = pytest.importorskip("bm25s", reason="bm25s is not installed")

from cowest_graph.domains.retrieval import Hybrid, Lexical, MiniLM, Semantic, minilm, passages  # noqa: E402

TEXTS = [
    "The kitten rests on the sofa.",
    "Stock markets fell sharply today.",
    "A bank raised its interest rates.",
    "The river bank was flooded today.",
]
DOCUMENTS = [Document(text, metadata={"key": str(n)}) for n, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def embeddings() -> MiniLM:
    try:
        return minilm()
    except ImportError as missing:
        pytest.skip(str(missing))


def found(retriever: object, query: str) -> list[str]:
    return [d.page_content for d in retriever.invoke(query)]  # type: ignore[attr-defined]


def test_words_find_what_has_them_and_nothing_else() -> None:
    lexical = Lexical(documents=DOCUMENTS, k=2)
    assert found(lexical, "kitten sofa") == TEXTS[:1]
    assert found(lexical, "zebra") == []
    assert len(found(lexical, "bank today")) == 2
    with pytest.raises(ValueError, match="no documents"):
        Lexical(documents=[])


def test_meaning_finds_what_says_it_otherwise(embeddings: MiniLM) -> None:
    semantic = Semantic(documents=DOCUMENTS, embeddings=embeddings, k=1)
    assert found(semantic, "A cat is sleeping") == TEXTS[:1]
    assert found(semantic, "Shares lost value") == TEXTS[1:2]


def test_both_rank_what_words_alone_cannot_tell_apart(embeddings: MiniLM) -> None:
    hybrid = Hybrid(documents=DOCUMENTS, embeddings=embeddings, k=1)
    assert found(hybrid, "Is the bank lending money at higher cost?") == TEXTS[2:3]
    assert found(hybrid, "zebra") == []


def test_a_text_has_one_vector_whatever_is_embedded_beside_it(embeddings: MiniLM) -> None:
    alone = MiniLM(str(embeddings.folder)).embed_query(TEXTS[0])
    beside = MiniLM(str(embeddings.folder)).embed_documents([TEXTS[0], " ".join(TEXTS * 4)])[0]
    assert alone == pytest.approx(beside, abs=1e-5)
    assert len(alone) == 384


def test_the_corpus_is_an_examples_passages_or_itself() -> None:
    own = Example("Who?", ["Ada", "A. Lovelace"], "She wrote it.")
    given = Example("What?", "x", passages=("one", "two", "one"))
    texts = [d.page_content for d in passages([own, given])]
    assert texts == ["Who?\nAnswer: Ada or A. Lovelace\nShe wrote it.", "one", "two"]
    assert passages([own])[0].metadata == {"key": own.key}
