from __future__ import annotations

import json
from pathlib import Path

import models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3index.encoder import layout
from m3index.encoder.tokens import ModelTokenizer
from m3index.errors import MismatchError, UsageError


def tokenizer(path: Path, **options: str) -> ModelTokenizer:
    return ModelTokenizer(layout.read(path, **options))


def test_special_tokens_and_offsets(m3: Path) -> None:
    (tokens,) = tokenizer(m3).documents(["the  book"])
    assert tokens.ids[0] == 0
    assert tokens.ids[-1] == 2
    assert tokens.offsets.tolist() == [[0, 0], [0, 3], [5, 9], [0, 0]]
    assert tokens.ids.dtype == tokens.offsets.dtype == np.int32


def test_offsets_leave_the_prompt_out(m3: Path) -> None:
    with_prompt = tokenizer(m3, document_prompt="the book: ")
    (tokens,) = with_prompt.documents(["fox jumps"])
    text = ["fox jumps"[a:b].strip() for a, b in tokens.offsets if b > a]
    assert text == ["fox", "jumps"]
    assert with_prompt.reserve > tokenizer(m3).reserve == 2
    assert len(tokens.ids) == len(tokenizer(m3).documents(["the book: fox jumps"])[0].ids)
    np.testing.assert_array_equal(with_prompt.document_ids(["fox jumps"])[0], tokens.ids)


def test_nothing_is_truncated_or_padded_whatever_the_file_says(tmp_path: Path) -> None:
    path = models.write_sentence_bert(tmp_path)
    stated = json.loads((path / "tokenizer.json").read_text())
    stated["truncation"] = {"max_length": 8, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    stated["padding"] = {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None,
                         "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}  # fmt: skip
    (path / "tokenizer.json").write_text(json.dumps(stated))
    short, long = tokenizer(path).documents(["fox", "fox " * 500])
    assert len(short.ids) == 3
    assert len(long.ids) == 502


def test_a_query_over_the_limit_is_refused(m3: Path) -> None:
    assert len(tokenizer(m3).query_ids(["the " * 126])[0]) == 128
    with pytest.raises(UsageError, match="129 tokens"):
        tokenizer(m3).query_ids(["ok", "the " * 127])


def test_lone_surrogates_are_one_character_each(m3: Path) -> None:
    text = "fox \ud800 book"
    (tokens,) = tokenizer(m3).documents([text])
    assert text[slice(*tokens.offsets[-2])] == "book"


def test_silent_tokens(m3: Path, bert: Path, mistral: Path) -> None:
    assert tokenizer(m3).silent_ids.tolist() == [0, 1, 2, 3]
    assert tokenizer(bert).silent_ids.tolist() == [0, 1, 2, 3]
    assert tokenizer(mistral).silent_ids.tolist() == [0, 1, 2]


def test_silent_tokens_without_a_tokenizer_config(tmp_path: Path) -> None:
    path = models.write_m3(tmp_path)
    (path / "tokenizer_config.json").unlink()
    assert tokenizer(path).silent_ids.tolist() == [0, 1, 2, 3]


def test_eos_is_appended_once(tmp_path: Path) -> None:
    path = models.write_sentence_mistral(tmp_path)
    assert tokenizer(path).document_ids(["fox"])[0][-1] == 2
    stated = json.loads((path / "tokenizer.json").read_text())
    stated["post_processor"] = None
    (path / "tokenizer.json").write_text(json.dumps(stated))
    assert tokenizer(path).document_ids(["fox"])[0][-1] != 2
    config = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps(config | {"add_eos_token": True}))
    tokens = tokenizer(path).documents(["fox"])[0]
    assert tokens.ids[-1] == 2
    assert tokens.offsets[-1].tolist() == [0, 0]
    (path / "tokenizer_config.json").write_text(json.dumps({"add_eos_token": True, "eos_token": "<end>"}))
    with pytest.raises(MismatchError, match="<end>"):
        tokenizer(path)


def test_lower_case_keeps_the_offsets(tmp_path: Path) -> None:
    path = models.write_sentence_xlmr(tmp_path)
    (path / "sentence_bert_config.json").write_text('{"max_seq_length": 64, "do_lower_case": true}')
    text = "İ FOX"
    upper, lower = tokenizer(path).documents([text, "i̇ fox"])
    np.testing.assert_array_equal(upper.ids, lower.ids)
    assert text[slice(*upper.offsets[-2])].strip() == "FOX"


def test_a_tokenizer_that_cannot_be_read(tmp_path: Path) -> None:
    path = models.write_m3(tmp_path)
    (path / "tokenizer.json").write_text("{}")
    with pytest.raises(MismatchError, match="tokenizer"):
        tokenizer(path)


def test_the_pieces_are_in_the_order_of_their_ids(m3_tokenizer: ModelTokenizer) -> None:
    """An unpadded row of ids, spelled."""
    pieces = m3_tokenizer.pieces
    (ids,) = m3_tokenizer.document_ids(["the cat"])
    assert "".join(pieces[i] for i in ids[1:-1]).replace("▁", " ").strip() == "the cat"
    assert len(set(pieces)) == len(pieces) == m3_tokenizer.vocabulary


def test_token_texts(m3: Path) -> None:
    t = tokenizer(m3)
    assert t.token_texts(t.document_ids(["the book"])[0].tolist()) == ["<s>", " the", " book", "</s>"]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(max_size=40), max_size=5))
def test_every_visible_character_is_in_a_token(m3_tokenizer: ModelTokenizer, texts: list[str]) -> None:
    for text, tokens in zip(texts, m3_tokenizer.documents(texts), strict=True):
        spans = [(a, b) for a, b in tokens.offsets.tolist() if b > a]
        assert all(0 <= a <= b <= len(text) for a, b in spans)
        assert spans == sorted(spans)
        covered = {i for a, b in spans for i in range(a, b)}
        assert {i for i, c in enumerate(text) if not c.isspace()} <= covered


@pytest.fixture(scope="session")
def m3_tokenizer(m3: Path) -> ModelTokenizer:
    return tokenizer(m3)
