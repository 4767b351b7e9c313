from __future__ import annotations

from collections.abc import Mapping

import pytest
from fakes import FakeEncoder

from m3index import Document
from m3index.encoder.options import Model
from m3index.errors import UsageError
from m3index.evaluate.coverage import cover, find_relevant
from m3index.index.options import IngestOptions
from m3index.service import IndexService
from m3index.store.memory import MemoryStore
from m3index.types import Query

QRELS = {f"q{i}": {f"d{i}": 1, f"x{i}": 0} for i in range(10)}


def test_the_queries_that_were_asked_and_judged() -> None:
    found = cover(["q3", "q1", "z1", "z2"], QRELS, "few.jsonl")
    assert (found.queries, found.not_asked, found.not_judged) == (("q1", "q3"), 8, 2)
    assert found.warnings == (
        "few.jsonl lacks 8 of the 10 judged queries; the mean is without them.",
        "The judgements lack 2 of the 4 queries of few.jsonl; the mean is without them.",
    )
    assert [q.query_id for q in found.select([Query("z1", ""), Query("q3", ""), Query("q1", "")])] == [
        "q3",
        "q1",
    ]


def test_all_judged_queries_on_request() -> None:
    found = cover(["q3"], QRELS, "few.jsonl", complete=True)
    assert found.queries == tuple(sorted(QRELS))
    assert found.warnings == ("few.jsonl lacks 9 of the 10 judged queries; the mean counts them as 0.",)


def test_nothing_to_say() -> None:
    assert cover(list(QRELS), QRELS, "all.jsonl").warnings == ()


@pytest.mark.parametrize("complete", [False, True])
def test_no_query_in_common(complete: bool) -> None:
    with pytest.raises(
        UsageError, match=r"No query of q\.tsv has judgements: it has 'a', the judgements 'q0', "
    ):
        cover(["a"], QRELS, "q.tsv", complete=complete)


def test_nothing_is_relevant() -> None:
    with pytest.raises(UsageError, match="judged relevant, so there is nothing to measure"):
        cover(["a"], {"a": {"d1": 0}}, "q.tsv")


@pytest.fixture
def service() -> IndexService:
    """Documents of two sources."""
    service = IndexService(MemoryStore(), "docs", Model(encoder=FakeEncoder()))
    for source, ids in (("default", "abc"), ("other", "de")):
        service.update([Document(i, f"text {i}") for i in ids], IngestOptions(source=source))
    return service


def relevant(*ids: str) -> Mapping[str, Mapping[str, int]]:
    return {"q": dict.fromkeys(ids, 1), "not asked": {"nowhere": 1}}


def test_relevant_documents_are_looked_up_in_every_source(service: IndexService) -> None:
    name = service.current().name
    found = find_relevant(service.store, name, relevant("a", "d"), ["q"])
    assert (found.count, found.missing, found.sources, found.warnings) == (2, (), ("default", "other"), [])
    found = find_relevant(service.store, name, relevant("a", "b"), ["q"])
    assert (found.missing, found.sources) == ((), ("default",))


def test_relevant_documents_that_the_collection_does_not_have(service: IndexService) -> None:
    name = service.current().name
    found = find_relevant(service.store, name, relevant("a", "d", "x", "y"), ["q"])
    assert found.warnings == [
        "The collection lacks 2 of the 4 documents that are judged relevant, and no search can find them: "
        "'x', 'y'."
    ]
    assert find_relevant(service.store, name, relevant("a", "d"), ["q"], "other").missing == ("a",)
    with pytest.raises(
        UsageError,
        match=r"relevant \(1 in all\) is in the collection of source 'other': 'a'",
    ):
        find_relevant(service.store, name, relevant("a"), ["q"], "other")
    with pytest.raises(UsageError, match=r"relevant \(2 in all\) is in the collection: 'x', 'y'"):
        find_relevant(service.store, name, relevant("x", "y"), ["q"])


def test_the_model_of_another_generation_is_loaded_on_the_same_device(
    service: IndexService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said of the new model, such as its prompts and that its code is trusted, is not said of it."""
    said = Model(
        encoder="new", device="cpu", precision="fp32", batch_tokens=64, revision="abc", dim=8,
        query_prompt="q: ", document_prompt="d: ", trust_remote_code=True,
    )  # fmt: skip
    monkeypatch.setattr(service, "_model", said)
    current = service.current()
    other = service._other_model(current)
    assert other == Model(
        encoder=current.properties["encoder"], device="cpu", precision="fp32", batch_tokens=64,
        dim=current.spec.dim,
    )  # fmt: skip
