from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import pytest

from m3index.distill import drift
from m3index.encoder.load import load
from m3index.encoder.model import ModelEncoder
from m3index.errors import GateError, MismatchError, UsageError
from m3index.schema import CollectionSpec
from m3index.store.memory import MemoryStore
from m3index.types import Row, document_key, join_title, passage_key


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> list[ModelEncoder]:
    paths = [models.write_m3(tmp_path_factory.mktemp(str(seed)), seed=seed) for seed in (0, 7)]
    return [load(str(path), device="cpu", precision="fp32") for path in paths]


def filled(writer: ModelEncoder, number: int = 30) -> MemoryStore:
    store = MemoryStore()
    store.create("docs__g1", CollectionSpec(dim=writer.info.dim, sparse="lexical"), {})
    words = models.LINES[0].split()
    texts = [" ".join(words[i % len(words) :][:5]) + f" {i}" for i in range(number)]
    encoded = writer.encode_documents([join_title("Fox", "", text) for text in texts])
    assert encoded.lexical is not None
    rows = [
        Row(
            passage_id=passage_key(document_key("default", str(i)), 0),
            doc_id=str(i),
            ordinal=0,
            source="default",
            doc_hash="h",
            passages=1,
            title="Fox",
            breadcrumb="",
            anchor="",
            text=text,
            metadata={},
            fields={},
            dense=encoded.dense[i],
            sparse=encoded.lexical.row(i),
        )
        for i, text in enumerate(texts)
    ]
    store.upsert("docs__g1", rows)
    return store


def test_what_the_teacher_wrote_agrees_with_it(encoders: list[ModelEncoder]) -> None:
    found = drift.measure(filled(encoders[0]), "docs__g1", encoders[0], sample=12)
    assert found.passages == 12
    assert found.mean_cosine == pytest.approx(1, abs=1e-5)
    assert found.token_overlap == 1.0
    drift.check(found, cosine=0.99, overlap=0.99)


def test_what_another_model_wrote_does_not(encoders: list[ModelEncoder]) -> None:
    found = drift.measure(filled(encoders[1]), "docs__g1", encoders[0])
    assert found.passages == 30
    assert found.worst[0][1] == pytest.approx(found.lowest_cosine)
    with pytest.raises(GateError, match=r"at least 0\.9000"):
        drift.check(found, cosine=0.9)
    with pytest.raises(GateError, match="token overlap"):
        drift.check(found, cosine=-1.0, overlap=1.01)


def test_the_sample_is_uniform_and_repeatable(encoders: list[ModelEncoder]) -> None:
    store = filled(encoders[0])
    one, again, other = (drift.sampled(store, "docs__g1", 10, seed) for seed in (0, 0, 1))
    assert one == again != other
    assert len(set(one)) == 10
    counts = np.zeros(30)
    keys = {key: i for i, key in enumerate(drift.sampled(store, "docs__g1", 30, 0))}
    for seed in range(200):
        for key in drift.sampled(store, "docs__g1", 10, seed):
            counts[keys[key]] += 1
    assert counts.min() > 40
    assert counts.max() < 95


def test_other_widths_and_nothing_stored_are_told(encoders: list[ModelEncoder]) -> None:
    store = MemoryStore()
    store.create("a", CollectionSpec(dim=8, sparse="lexical"), {})
    store.create("b", CollectionSpec(dim=32, sparse="lexical"), {})
    with pytest.raises(MismatchError, match="8 dimensions"):
        drift.measure(store, "a", encoders[0])
    with pytest.raises(UsageError, match="no passages"):
        drift.measure(store, "b", encoders[0])


def test_what_is_expected_without_a_certificate(tmp_path: Path) -> None:
    assert drift.expected(tmp_path) == drift.Expected(None, 0.9, None)
