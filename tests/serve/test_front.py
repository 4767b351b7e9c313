from __future__ import annotations

from serving import build

from m3index.index.options import DeleteOptions
from m3index.index.tenant import Tenant
from m3index.serve.front import LONGEST, Front, front
from m3index.service import IndexService
from m3index.types import Document


def of(index: IndexService, owner: Tenant | None = None) -> Front:
    current = index.current()
    return front(index.store, current.name, current.spec, owner)


def test_samples_are_titles_or_beginnings_of_texts_in_turn_by_language() -> None:
    long_title = "a title of many words " * 5
    index = build(documents=[
        *[Document(f"en{n}", "text", f"English title {n}", {"lang": "en"}) for n in range(9)],
        Document("de", "Die Biene  fliegt\nvon Blüte zu Blüte, " * 9, "", {"lang": "de"}),
        Document("fr", "texte", long_title, {"lang": "fr"}),
        Document("ja", "蜂は花から花へと飛ぶ。" * 40, "", {"lang": "ja"}),
    ])  # fmt: skip
    found = of(index)
    assert found.documents == 12
    assert len(found.queries) == len(set(found.queries)) == 4
    assert {query[:7] for query in found.queries} == {"English", "Die Bie", "蜂は花から花へ"}
    assert "Die Biene fliegt von Blüte zu Blüte, Die Biene fliegt von" in found.queries
    assert all(len(query) <= LONGEST for query in found.queries)
    assert found.condition in ("lang=en", "lang=de", "lang=fr", "lang=ja")


def test_a_tenant_sees_its_own_documents_only() -> None:
    index = build(
        documents=[
            Document(f"{org}{n}", "text", f"{org} {n}", {"org": org}) for org in ("a", "b") for n in range(3)
        ],
        tenant_field="org",
    )
    found = of(index, index.tenant("b"))
    assert (found.documents, found.passages) == (3, 3)
    assert sorted(found.queries) == ["b 0", "b 1", "b 2"]
    assert found.condition == ""
    assert of(index).documents == 6


def test_an_empty_collection_has_no_samples() -> None:
    index = build(documents=[Document("a", "text")])
    index.delete(DeleteOptions(ids=["a"]))
    assert of(index) == Front(0, 0, [], "")
