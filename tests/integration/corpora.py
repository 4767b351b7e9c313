"""Corpora for the suite: small, in several scripts, with everything in metadata that can be filtered."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from fakes import FakeEncoder
from index.support import rows
from integration.engines import Engine

from m3index.api import Index
from m3index.corpus.windows import PassageSettings
from m3index.index.prune import MaxDelete
from m3index.index.settings import SyncSettings
from m3index.types import Document, FieldType, SparseKind

LANGUAGES = {
    "en": "the sea rises and falls twice a day because the moon pulls it",
    "de": "Ebbe und Flut entstehen durch die Anziehungskraft des Mondes auf das Meer",
    "ru": "приливы и отливы вызваны притяжением луны и солнца",
    "zh": "潮汐 是 月球 引力 造成 的 海水 涨落",
    "ko": "밀물과 썰물은 달의 중력 때문에 생긴다",
    "ar": "المد والجزر سببهما جاذبية القمر والشمس",
    "tr": "gelgit ayın çekim kuvvetinden kaynaklanır",
}


def documents(number: int, *, seed: int = 0, edition: int = 0) -> list[Document]:
    """1 to 4 passages each. Another edition changes a third of the texts and a third of the metadata."""
    found = []
    for i in range(number):
        changed = edition if i % 3 == 1 else 0
        chance = random.Random(f"{seed} {i} {changed}")
        lang = chance.choice(list(LANGUAGES))
        words = [chance.choice(LANGUAGES[lang].split()) for _ in range(chance.randrange(2, 26))]
        text = f"{' '.join(words)} {lang}{seed}x{i}v{changed}"
        metadata: dict[str, Any] = {"lang": lang, "year": 1990 + i % 40, "tags": [f"t{i % 3}", "all"]}
        if i % 3 == 2:
            metadata["edition"] = edition
        if i % 7 == 3:
            del metadata["year"]
        found.append(Document(f"doc {seed}.{i} \"'ü", text, f"Title {i % 5}" if i % 2 else "", metadata))
    return found


def settings(engine: Engine, **changes: Any) -> SyncSettings:
    sparse: SparseKind = changes.pop("sparse", engine.sparse)
    fields: dict[str, FieldType] = changes.pop("fields", dict(engine.fields))
    return SyncSettings(
        passages=PassageSettings(tokens=10, overlap=2),
        max_delete=MaxDelete(percent=100.0),
        sparse=sparse,
        fields=fields,
        **changes,
    )


def in_memory(items: Iterable[Document], how: SyncSettings, encoder: FakeEncoder | None = None) -> Index:
    """A rebuild: the same documents in the exact store."""
    index = Index.open("docs", uri="memory:", encoder=encoder or FakeEncoder())
    index.sync(list(items), how)
    return index


def held(index: Index) -> dict[str, dict[str, Any]]:
    """Every row of the collection, in a form that compares."""
    return rows(index.store, index.collection)
