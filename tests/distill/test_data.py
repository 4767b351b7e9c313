from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3index.distill.data import Batches, Dataset, prepare, text_digest
from m3index.distill.options import TrainingData
from m3index.encoder import layout
from m3index.encoder.tokens import ModelTokenizer
from m3index.errors import UsageError
from m3index.types import Document, Place, Rejected

DATA = TrainingData(corpus=(), tokens=24, long_share=0.0, held_out=0.2)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> list[ModelTokenizer]:
    m3 = models.write_m3(tmp_path_factory.mktemp("m3"))
    bert = models.write_sentence_bert(tmp_path_factory.mktemp("bert"))
    return [ModelTokenizer(layout.read(path)) for path in (m3, bert)]


def documents(number: int) -> Iterator[Document]:
    for i in range(number):
        yield Document(str(i), f"the fox {i} reads a book about search", metadata={"lang": "en"})


def test_each_text_once_and_none_both_held_out_and_trained(
    tokenizers: list[ModelTokenizer], tmp_path: Path
) -> None:
    twice = [*documents(200), *(Document(d.doc_id, f"  {d.text.upper()} ") for d in documents(50))]
    made = prepare(twice, tmp_path / "d", tokenizers[:1], DATA)
    assert made.prepared.duplicates == 50
    assert len(made.ids[0]) + len(made.held_out) == 200
    assert made.prepared.inputs == len(made.ids[0])
    trained = {tuple(row) for row in made.ids[0].rows(range(len(made.ids[0])))}
    held_out = {tuple(row) for row in tokenizers[0].document_ids([h.text for h in made.held_out])}
    assert len(trained) == made.prepared.inputs
    assert not trained & held_out
    assert made.held_out[0].lang == "en"


def test_excluded_texts_are_neither(tokenizers: list[ModelTokenizer], tmp_path: Path) -> None:
    banned = [d.text for d in documents(40)]
    made = prepare(
        documents(200), tmp_path / "d", tokenizers[:1], DATA, exclude=set(map(text_digest, banned))
    )
    assert made.prepared.excluded == 40
    assert not {h.text for h in made.held_out} & set(banned)


def test_long_documents_are_cut_and_nothing_of_them_lost(
    tokenizers: list[ModelTokenizer], tmp_path: Path
) -> None:
    long = Document("long", " ".join(["the quick brown fox jumps"] * 40))
    made = prepare([long, *documents(50)], tmp_path / "d", tokenizers[:1], DATA)
    assert made.ids[0].lengths.max() <= 24
    assert made.prepared.tokens > len(tokenizers[0].document_ids([long.text])[0])


@pytest.mark.parametrize("long_share", [0.0, 0.5, 1.0])
def test_every_training_text_is_replaced_after_joining(
    tokenizers: list[ModelTokenizer], tmp_path: Path, long_share: float
) -> None:
    """The last texts too, which do not fill a long input."""
    data = TrainingData(corpus=(), tokens=64, long_share=long_share, plain_share=0.0, held_out=0.1)
    given: list[str] = []

    def replaced(text: str, _digest: int) -> str:
        given.append(text)
        return "the fox"

    made = prepare(documents(100), tmp_path / "d", tokenizers[:1], data, replaced=replaced)
    (short,) = tokenizers[0].document_ids(["the fox"])
    assert [row.tolist() for row in made.ids[0].rows(range(len(made.ids[0])))] == [short.tolist()] * len(
        given
    )
    held_out = {text.text for text in made.held_out}
    texts = sorted(line for text in given for line in text.split("\n"))
    assert texts == sorted(d.text for d in documents(100) if d.text not in held_out)


def test_plain_texts_keep_their_words_and_come_last(tokenizers: list[ModelTokenizer], tmp_path: Path) -> None:
    data = TrainingData(corpus=(), tokens=64, long_share=0.0, plain_share=0.25, held_out=0.1)
    rows = [Document(d.doc_id, d.text, metadata={"plain": "a field of the corpus"}) for d in documents(800)]
    made = prepare(rows, tmp_path / "d", tokenizers, data, replaced=lambda text, _: f"the {text}")
    strange, plain = made.stages
    assert strange.stop == plain.start
    assert plain.stop == made.prepared.inputs == len(made.ids[0]) == len(made.ids[1])
    assert 0.2 < len(plain) / made.prepared.inputs < 0.3
    held_out = {text.text for text in made.held_out}
    known = {
        tuple(r): d.text
        for d, r in zip(rows, tokenizers[1].document_ids([d.text for d in rows]), strict=True)
    }
    changed = {
        tuple(r): d.text
        for d, r in zip(rows, tokenizers[1].document_ids([f"the {d.text}" for d in rows]), strict=True)
    }
    found = [known[tuple(row)] for row in made.ids[1].rows(plain)]
    found += [changed[tuple(row)] for row in made.ids[1].rows(strange)]
    assert sorted(found) == sorted(d.text for d in rows if d.text not in held_out)
    assert Dataset(tmp_path / "d").stages == made.stages
    assert not list((tmp_path / "d").glob("plain*"))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_without_two_kinds_of_texts_there_is_one_stage(
    tokenizers: list[ModelTokenizer], tmp_path: Path, share: float
) -> None:
    data = TrainingData(corpus=(), tokens=64, plain_share=share, held_out=0.1)
    for replaced in (None, lambda text, _: f"the {text}"):
        made = prepare(documents(100), tmp_path / "d", tokenizers[:1], data, replaced=replaced)
        assert made.stages == [range(made.prepared.inputs)]


def test_a_share_is_joined_to_long_inputs(tokenizers: list[ModelTokenizer], tmp_path: Path) -> None:
    made = prepare(
        documents(300),
        tmp_path / "d",
        tokenizers[:1],
        TrainingData(corpus=(), tokens=64, long_share=0.5, held_out=0.1),
    )
    lengths = made.ids[0].lengths
    short = len(tokenizers[0].document_ids(["the fox 10 reads a book about search"])[0])
    assert (lengths > 2 * short).sum() >= 10
    assert (lengths <= short + 2).sum() >= 80


def test_two_tokenizers_see_the_same_texts(tokenizers: list[ModelTokenizer], tmp_path: Path) -> None:
    made = prepare(documents(100), tmp_path / "d", tokenizers, DATA)
    assert len(made.ids[0]) == len(made.ids[1])
    words = [
        "".join(t.token_texts([i for i in row if i not in t.silent_ids]))
        for t, ids in zip(tokenizers, made.ids, strict=True)
        for row in ids.rows([7])
    ]
    plain = [w.replace(" ", "").replace("##", "") for w in words]
    assert plain[0] == plain[1]


def test_it_is_read_back_and_its_digest_is_of_the_texts(
    tokenizers: list[ModelTokenizer], tmp_path: Path
) -> None:
    made = prepare(documents(100), tmp_path / "a", tokenizers[:1], DATA)
    again = prepare(documents(100), tmp_path / "b", tokenizers[:1], DATA)
    other = prepare(documents(110), tmp_path / "c", tokenizers[:1], DATA)
    assert made.prepared == again.prepared == Dataset(tmp_path / "a").prepared
    assert other.prepared.digest != made.prepared.digest
    assert json.loads((tmp_path / "a/data.json").read_text())["prepared"]["digest"] == made.prepared.digest
    assert made.prepared.digest == "043bbc0172bec987d87c3084109d7c9a"  # caches and runs to resume have it


def test_rejected_rows_are_told_and_left_out(tokenizers: list[ModelTokenizer], tmp_path: Path) -> None:
    told: list[Rejected] = []
    rows = [Rejected(Place("x", 1), "bad"), *documents(60)]
    made = prepare(rows, tmp_path / "d", tokenizers[:1], DATA, rejected=told.append)
    assert made.prepared.rejected == len(told) == 1


def test_too_small_a_corpus_is_refused(tokenizers: list[ModelTokenizer], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too small"):
        prepare(documents(1), tmp_path / "d", tokenizers[:1], DATA)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(3, 60), min_size=1, max_size=400),
    st.integers(30, 500),
    st.integers(0, 9),
    st.integers(0, 3),
)
def test_an_epoch_has_every_input_once_within_the_budget(
    lengths: list[int], budget: int, seed: int, number: int
) -> None:
    batches = Batches(np.array(lengths, np.int32), range(len(lengths)), budget, seed)
    planned = batches.epoch(number)
    assert sorted(np.concatenate(planned).tolist()) == list(range(len(lengths)))
    for batch in planned:
        assert len(batch) == 1 or sum(lengths[i] for i in batch) <= budget
    assert all(np.array_equal(a, b) for a, b in zip(planned, batches.epoch(number), strict=True))


def test_going_on_from_a_cursor_is_going_on() -> None:
    batches = Batches(np.full(50, 10, np.int32), range(50), 40, 0)
    stream = batches.from_(0, 0)
    steps = [next(stream) for _ in range(30)]
    epoch, place, _ = steps[16]
    again = batches.from_(epoch, place)
    for expected in steps[17:]:
        found = next(again)
        assert found[:2] == expected[:2]
        assert np.array_equal(found[2], expected[2])
    assert steps[-1][0] == 2


@given(st.integers(1, 5000), st.integers(0, 3000))
def test_batches_of_a_stage_are_of_its_inputs(first: int, size: int) -> None:
    batches = Batches(np.full(first + size, 10, np.int32), range(first, first + size), 40, 0)
    planned = batches.epoch(0)
    assert sorted(int(i) for batch in planned for i in batch) == list(range(first, first + size))


def test_epochs_differ() -> None:
    batches = Batches(np.full(500, 10, np.int32), range(500), 40, 0)
    assert not all(np.array_equal(a, b) for a, b in zip(batches.epoch(0), batches.epoch(1), strict=True))
