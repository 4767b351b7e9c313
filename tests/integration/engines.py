"""The server under test, and the table of features that engines lack.

docs/compatibility.md lists every entry, word for word (test_compatibility.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import pytest

from m3index.types import FieldType, SparseKind

Name: TypeAlias = Literal["lite-server", "server", "server 2.3"]

LACKS: Mapping[str, Mapping[str, str]] = {
    "lite-server": {
        "authentication": "milvus-lite server has no users and takes any token",
        "index build": "milvus-lite server keeps no graph index: FLAT has nothing to build",
        "halves": "Milvus Lite keeps dense vectors as fp32",
        "index classes": "Milvus Lite has one index, an exact scan",
        "icu": "Milvus Lite has one tokenizer, for words with spaces; the client folds and stems",
        "weights in RRF": "Milvus Lite fuses without weights; m3index fuses on the client",
    },
    "server": {},
    "server 2.3": {
        "lexical": "Milvus 2.3 has no sparse vectors (since 2.4)",
        "bm25": "Milvus 2.3 has no BM25 (since 2.5)",
        "icu": "Milvus 2.3 has no BM25 (since 2.5)",
        "fields": "Milvus 2.3 has no nullable fields (since 2.5)",
        "tenants": "Milvus 2.3 loses a tenant's rows when they are written again (since 2.4)",
        "halves": "Milvus 2.3 has no half-precision vectors (since 2.4)",
        "databases": "Milvus 2.3 finds aliases in the default database only",
        "weights in RRF": "Milvus 2.3 has no hybrid search (since 2.4)",
    },
    "a server given by M3INDEX_TEST_URI": {
        "restart": "the suite stops only a server that it has started itself",
    },
    "a server without M3INDEX_TEST_TOKEN": {
        "authentication": "no token is given, so the server is taken for one without users",
    },
}


@dataclass(frozen=True)
class Engine:
    """The server under test. name, given, token: select the rows of LACKS that apply."""

    uri: str
    token: str | None
    name: Name
    given: bool

    def lacks(self, feature: str) -> str | None:
        """Why this engine lacks the feature; None if it has it."""
        holding = [self.name]
        if self.given:
            holding.append("a server given by M3INDEX_TEST_URI")
        if self.given and not self.token:
            holding.append("a server without M3INDEX_TEST_TOKEN")
        return next((f"{row}: {LACKS[row][feature]}" for row in holding if feature in LACKS[row]), None)

    def needs(self, *features: str) -> None:
        """Skips the test if the engine lacks a feature, with the reason from the table."""
        for feature in features:
            if reason := self.lacks(feature):
                pytest.skip(f"{feature}: {reason}")

    @property
    def sparse(self) -> SparseKind:
        return "none" if self.lacks("lexical") else "lexical"

    @property
    def fields(self) -> Mapping[str, FieldType]:
        return {} if self.lacks("fields") else {"lang": "str", "year": "int", "tags": "str[]"}


def engine_name(described: Mapping[str, object]) -> Name:
    if described["kind"] == "lite-server":
        return "lite-server"
    return "server 2.3" if str(described["version"]).startswith("v2.3.") else "server"
