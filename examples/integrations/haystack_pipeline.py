"""A Haystack pipeline over the example corpus, with the model `offline`: no network, no server.

pip install 'm3index[offline,haystack]'; python examples/integrations/haystack_pipeline.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from haystack import Pipeline

from m3index import Index
from m3index.integrations.haystack import M3Retriever

CORPUS = Path(__file__).resolve().parent.parent / "corpus.jsonl"


def main(corpus: Path = CORPUS) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        uri = f"{folder}/almanac.db"
        with Index("almanac", uri=uri, encoder="offline") as index:
            index.ingest(corpus, fields={"lang": str, "year": int})
        retriever = M3Retriever("almanac", uri, search={"k": 3, "where": {"lang": "en"}})
        pipeline = Pipeline()
        pipeline.add_component("retriever", retriever)
        question = "how do bees tell each other where the flowers are"
        documents = pipeline.run({"retriever": {"query": question}})["retriever"]["documents"]
        retriever.close()
    for document in documents:
        print(document.meta["title"], "|", document.content[:60])
    return [document.meta["m3index_doc_id"] for document in documents]


if __name__ == "__main__":
    main()
