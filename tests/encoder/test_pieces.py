"""The pieces of a text alone: the same ids and offsets as those of the whole tokenizer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3index.encoder import e5, layout, pieces, prepared, source, tokens
from m3index.encoder.tokens import ModelTokenizer

CORPUS = Path(__file__).parents[2] / "examples" / "corpus.jsonl"
STRANGE = [
    *(
        "",
        " ",
        "  ",
        "\n",
        "a  b",
        "x\n\ny ",
        " lead",
        "trail ",
        "\u2581",
        "\u3000全角ＡＢＣ",
        "ﬁ½①",
        "\u200d",
    ),
    *("e\u0301", "🤷🏽‍♀️ 🇩🇪", "\ue000\ue001", "中文日本語한국어", "กขค", "\ud800 alone", "\x00", "<", "< s>"),
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return prepared.cache_folder()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("e5")
    models.write_e5s1(folder / "small.bin")
    (folder / "model").mkdir()
    e5.convert(folder / "small.bin", folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelTokenizer, ModelTokenizer]:
    """The tokenizer of `offline` by its pieces, and whole."""
    models.needs_offline()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        found = source.locate("offline")
        read = layout.read(found.directory, preset=found.preset)
        by_pieces = ModelTokenizer(read, prepare=True)
    by_pieces._few_calls = 10**9
    return by_pieces, ModelTokenizer(read)


def assert_same(by_pieces: ModelTokenizer, whole: ModelTokenizer, texts: list[str]) -> None:
    for mine, theirs in zip(by_pieces.documents(texts), whole.documents(texts), strict=True):
        np.testing.assert_array_equal(mine.ids, theirs.ids)
        np.testing.assert_array_equal(mine.offsets, theirs.offsets)
    for few, all_of_it in zip(by_pieces.query_ids(texts), whole.query_ids(texts), strict=True):
        np.testing.assert_array_equal(few, all_of_it)


def test_texts_in_many_languages(both: tuple[ModelTokenizer, ModelTokenizer]) -> None:
    by_pieces, whole = both
    rows = [json.loads(line) for line in CORPUS.read_text("utf-8").splitlines()]
    for row in rows:
        assert_same(by_pieces, whole, [row["title"], row["text"][:400]])
    for text in STRANGE:
        assert_same(by_pieces, whole, [text])
    assert "_backend" not in by_pieces.__dict__
    np.testing.assert_array_equal(by_pieces.silent_ids, whole.silent_ids)
    for name in ("reserve", "prompt_tokens", "query_prompt_tokens"):
        assert getattr(by_pieces, name) == getattr(whole, name)
    ids = whole.query_ids(["why does the sea rise"])[0].tolist()
    assert by_pieces.token_texts(ids) == whole.token_texts(ids)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=3))
def test_any_text(both: tuple[ModelTokenizer, ModelTokenizer], texts: list[str]) -> None:
    assert_same(*both, texts)


@pytest.mark.parametrize("text", ["<s>", "a <mask> b", "x </s>", "long " * 500])
def test_what_the_whole_tokenizer_has_to_encode(
    both: tuple[ModelTokenizer, ModelTokenizer], text: str
) -> None:
    by_pieces, whole = both
    assert by_pieces._pieces is not None
    assert by_pieces._pieces.encode([text]) is None
    again = ModelTokenizer(whole._layout)
    again._pieces = by_pieces._pieces
    np.testing.assert_array_equal(again.document_ids([text])[0], whole.document_ids([text])[0])


def test_it_is_prepared_once_and_announced(
    small: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "m3index.encoder")
    read = layout.read(small)
    assert ModelTokenizer(read, prepare=True)._pieces is None  # small: as fast as it is
    monkeypatch.setattr(pieces, "_LARGE", 0)
    for _ in range(2):
        made = ModelTokenizer(read, prepare=True)
        assert_same(made, ModelTokenizer(read), ["the fox", ""])
    assert caplog.messages == [f"Preparing the tokenizer of model, once, in {cache}."]
    assert [form.name for form in prepared.prepared()] == ["model-tokenizer"]


def test_after_some_calls_the_whole_tokenizer_is_read(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_LARGE", 0)
    made = ModelTokenizer(layout.read(small), prepare=True)
    first = made.query_ids(["the fox"])[0]
    for _ in range(tokens._FEW_CALLS):
        np.testing.assert_array_equal(made.query_ids(["the fox"])[0], first)
    assert "_backend" in made.__dict__


def test_other_models_have_no_pieces(m3: Path, bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_LARGE", 0)
    assert pieces.pieces(layout.read(bert)) is None
    assert prepared.prepared() == []


def test_without_a_cache_the_whole_tokenizer_is_read(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pieces, "_LARGE", 0)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert ModelTokenizer(layout.read(small), prepare=True)._pieces is None
    assert "cannot be written" in caplog.text


def test_it_needs_no_torch(small: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from m3index.encoder import layout, pieces\n"
        f"pieces._LARGE = 0; print(pieces.pieces(layout.read(Path({str(small)!r}))).encode(['fox'])[0].ids)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)
