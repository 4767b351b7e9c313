"""Small corpora in several scripts, with metadata of every type that can be filtered."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from fakes import FakeEncoder
from index.support import rows
from integration.engines import Engine

from m3index.api import Index
from m3index.index.collection import Collection
from m3index.service import IndexService
from m3index.store.base import Store
from m3index.types import Document

LANGUAGES = {
    "en": "the sea rises and falls twice a day because the moon pulls it",
    "de": "Ebbe und Flut entstehen durch die Anziehungskraft des Mondes auf das Meer",
    "ru": "приливы и отливы вызваны притяжением луны и солнца",
    "zh": "潮汐 是 月球 引力 造成 的 海水 涨落",
    "ko": "밀물과 썰물은 달의 중력 때문에 생긴다",
    "ar": "المد والجزر سببهما جاذبية القمر والشمس",
    "tr": "gelgit ayın çekim kuvvetinden kaynaklanır",
}


ALL = "100%"
"""The `max_delete` of runs in tests of other features."""

Layout: TypeAlias = Mapping[str, Any]
"""The options that determine the layout of a collection."""


class OpenIndex(Index):
    """An index as users open it, with access to its internals."""

    @property
    def service(self) -> IndexService:
        return self._service

    @property
    def store(self) -> Store:
        return self._service.store

    @property
    def collection(self) -> str:
        return self._service.collection

    def current(self) -> Collection:
        return self._service.current()


def documents(number: int, *, seed: int = 0, edition: int = 0) -> list[Document]:
    """Documents of 1 to 4 passages. Another edition changes a third of the texts and of the metadata."""
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


def layout(engine: Engine, **changes: Any) -> Layout:
    """Options with small passages and all features of the engine, with `changes` applied."""
    own = {"passage_tokens": 10, "overlap": 2, "sparse": engine.sparse, "fields": dict(engine.fields)}
    return own | changes


def in_memory(items: Iterable[Document], how: Layout, encoder: FakeEncoder | None = None) -> OpenIndex:
    """Rebuilds the index from the same documents in the exact store."""
    index = OpenIndex("docs", uri="memory:", encoder=encoder or FakeEncoder())
    index.sync(list(items), max_delete=ALL, **how)
    return index


def held(index: OpenIndex) -> dict[str, dict[str, Any]]:
    """All rows of the collection in a comparable form."""
    return rows(index.store, index.collection)
