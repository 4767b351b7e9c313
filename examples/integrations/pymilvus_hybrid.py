"""pymilvus's own hybrid search, its vectors from m3index.

The only line that differs from pymilvus-model's example is the import:

    from pymilvus.model.hybrid import BGEM3EmbeddingFunction

With BAAI/bge-m3 on this machine: python examples/integrations/pymilvus_hybrid.py
With a student or another model that has a lexical head: ... pymilvus_hybrid.py DIRECTORY
"""

from __future__ import annotations

import sys
import tempfile

from pymilvus import AnnSearchRequest, DataType, MilvusClient, RRFRanker

from m3index.integrations.pymilvus import M3EmbeddingFunction as BGEM3EmbeddingFunction

TEXTS = [
    "The sea rises and falls because the Moon pulls on it.",
    "Flour, water, salt and time are all that a loaf needs.",
    "Honey bees dance to tell where the flowers are.",
]


def main(model: str = "BAAI/bge-m3") -> list[str]:
    embed = BGEM3EmbeddingFunction(model_name=model, use_fp16=False, device="cpu")
    documents, query = embed.encode_documents(TEXTS), embed.encode_queries(["why are there tides in the sea"])

    schema = MilvusClient.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("text", DataType.VARCHAR, max_length=1000)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=embed.dim["dense"])
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    indexes = MilvusClient.prepare_index_params()
    indexes.add_index("dense", index_type="FLAT", metric_type="IP")
    indexes.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")

    with tempfile.TemporaryDirectory() as folder:
        client = MilvusClient(f"{folder}/example.db")
        client.create_collection("example", schema=schema, index_params=indexes)
        rows = [
            {"id": i, "text": text, "dense": documents["dense"][i], "sparse": documents["sparse"][[i]]}
            for i, text in enumerate(TEXTS)
        ]
        client.insert("example", rows)
        client.load_collection("example")
        requests = [
            AnnSearchRequest(query["dense"], "dense", {"metric_type": "IP"}, limit=3),
            AnnSearchRequest([query["sparse"][[0]]], "sparse", {"metric_type": "IP"}, limit=3),
        ]
        hits = client.hybrid_search("example", requests, RRFRanker(), limit=3, output_fields=["text"])[0]
        client.close()
    found = [hit["entity"]["text"] for hit in hits]
    print(*found, sep="\n")
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
