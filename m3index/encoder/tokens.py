"""The tokenizer of a model directory. Uses only the `tokenizers` library, not torch, and never truncates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import normalizers

from m3index.corpus.cut import CutsHere
from m3index.corpus.windows import Tokens, speakable
from m3index.encoder.layout import Layout
from m3index.encoder.pieces import pieces
from m3index.encoder.plausible import check_size, check_tokenizer, check_tokenizer_file
from m3index.errors import MismatchError, ModelNotFoundError, UsageError
from m3index.types import IntArray

_FEW_CALLS = 16
"""Calls after which the whole tokenizer, which takes longer to read but is faster, is worth it."""

# Tokens without a lexical weight: FlagEmbedding's cls, eos, pad and unk. bos and sep are other names for
# the same tokens, except in BERT, where [SEP] ends a text.
_ROLES = ("cls_token", "bos_token", "eos_token", "sep_token", "pad_token", "unk_token")
_USUAL_NAMES = ("<s>", "</s>", "<pad>", "<unk>", "[CLS]", "[SEP]", "[PAD]", "[UNK]")


class ModelTokenizer(CutsHere):
    """A fast tokenizer with the model's prompts and special tokens. Implements `corpus.windows.Tokenizer`.

    limit: the maximum number of tokens per input. reserve: how many of them the document prompt and the
    special tokens take. silent_ids: the token ids without a lexical weight, ascending, int32.
    """

    def __init__(self, layout: Layout, *, prepare: bool = False) -> None:
        """prepare: the first short texts need only their own pieces of a large vocabulary, which is kept for
        that in the cache of prepared models."""
        self.limit = layout.limit
        self.query_prompt, self.document_prompt = layout.query_prompt, layout.document_prompt
        self._layout = layout
        self._few_calls = _FEW_CALLS
        self._pieces = pieces(layout) if prepare else None
        roles = _special_names(layout.backbone)
        self.silent_ids: IntArray = np.array(
            sorted({i for name in roles if (i := self._known.token_to_id(name)) is not None}), np.int32
        )
        self._eos = self._eos_to_append(layout)

    @cached_property
    def _backend(self) -> Any:
        """The whole tokenizer of the library."""
        backend = _backend(self._layout.backbone)
        backend.no_truncation()
        backend.no_padding()
        if self._layout.lower_case:
            parts = [n for n in (normalizers.Lowercase(), backend.normalizer) if n is not None]
            backend.normalizer = normalizers.Sequence(parts)
        return backend

    @property
    def _known(self) -> Any:
        """What knows the ids of single tokens."""
        return self._pieces or self._backend

    @cached_property
    def reserve(self) -> int:
        return len(self.documents([""])[0].ids)

    @cached_property
    def prompt_tokens(self) -> int:
        """How many leading ids belong to the document prompt and the tokens before it."""
        return self._leading(self.document_prompt)

    @cached_property
    def query_prompt_tokens(self) -> int:
        return self._leading(self.query_prompt)

    @property
    def vocabulary(self) -> int:
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @property
    def pieces(self) -> list[str]:
        """The vocabulary as the tokenizer writes it, indexed by id. An id without a piece is ""."""
        ids = self._backend.get_vocab()
        vocabulary = [""] * (1 + max(ids.values(), default=-1))
        for piece, i in ids.items():
            vocabulary[i] = piece
        return vocabulary

    def documents(self, texts: Sequence[str]) -> list[Tokens]:
        """Ids include prompt and special tokens; offsets count characters of the text without the prompt."""
        shift = len(self.document_prompt)
        return [self._tokens(e, shift) for e in self._encode(self.document_prompt, texts, offsets=True)]

    def document_ids(self, texts: Sequence[str]) -> list[IntArray]:
        """The ids of `documents`, without the cost of the offsets."""
        return [self._ids(e) for e in self._encode(self.document_prompt, texts, offsets=False)]

    def query_ids(self, texts: Sequence[str]) -> list[IntArray]:
        """Token ids of queries, including prompt and special tokens. Raises UsageError above the limit."""
        rows = [self._ids(e) for e in self._encode(self.query_prompt, texts, offsets=False)]
        for row in rows:
            if len(row) > self.limit:
                raise UsageError(
                    f"A query has {len(row)} tokens, but this model takes {self.limit}. Shorten the query."
                )
        return rows

    def pair_ids(self, query: str, texts: Sequence[str]) -> list[tuple[IntArray, IntArray]]:
        """(ids, token type ids) of query and text as one input for cross-encoders."""
        pairs = [(speakable(query), speakable(text)) for text in texts]
        encodings = self._backend.encode_batch_fast(pairs)
        return [(np.array(e.ids, np.int32), np.array(e.type_ids, np.int32)) for e in encodings]

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """The texts of token ids for display; a leading space marks the beginning of a word."""
        return [(self._known.id_to_token(int(i)) or "").replace("▁", " ") for i in ids]

    def close(self) -> None:
        """Stops worker processes; this class has none."""

    def _encode(self, prompt: str, texts: Sequence[str], *, offsets: bool) -> list[Any]:
        inputs = [prompt + text for text in texts]
        try:
            return self._encoded(inputs, offsets)
        except (TypeError, UnicodeEncodeError):  # a lone surrogate is not valid UTF-8
            return self._encoded([speakable(text) for text in inputs], offsets)

    def _encoded(self, inputs: list[str], offsets: bool) -> list[Any]:
        if self._pieces is not None and self._few_calls > 0 and "_backend" not in self.__dict__:
            self._few_calls -= 1
            if (few := self._pieces.encode(inputs)) is not None:
                return list(few)
        return list((self._backend.encode_batch if offsets else self._backend.encode_batch_fast)(inputs))

    def _ids(self, encoding: Any) -> IntArray:
        ids = encoding.ids
        return np.array(ids if self._eos is None else [*ids, self._eos], np.int32)

    def _tokens(self, encoding: Any, shift: int) -> Tokens:
        ids = self._ids(encoding)
        offsets = np.zeros((len(ids), 2), np.int32)
        spans = np.array(encoding.offsets, np.int32).reshape(-1, 2)
        offsets[: len(spans)] = spans
        if shift:
            np.maximum(offsets - shift, 0, out=offsets)
        return Tokens(ids, offsets)

    def _eos_to_append(self, layout: Layout) -> int | None:
        """The EOS id to add to every input of a decoder embedder, None if the tokenizer adds it itself."""
        if not layout.append_eos:
            return None
        name = _token_content(_config(layout.backbone).get("eos_token"), "</s>")
        eos = self._known.token_to_id(name)
        if eos is None:
            raise MismatchError(f"{layout.backbone}: the tokenizer has no {name!r} token to end inputs with.")
        return None if self._encoded([""], offsets=False)[0].ids[-1:] == [eos] else int(eos)

    def _leading(self, prompt: str) -> int:
        """How many ids precede the text. Like sentence-transformers, excludes trailing special tokens."""
        if not prompt:
            return 0
        ids = self._ids(self._encode(prompt, [""], offsets=False)[0])
        return len(ids) - int(ids[-1] in self.silent_ids)


def _backend(directory: Path) -> Any:
    path = directory / "tokenizer.json"
    if path.is_file():
        check_tokenizer_file(path)
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as e:  # the library raises bare Exception
            raise MismatchError(f"{path} cannot be read as a tokenizer: {e}.") from e
        check_tokenizer(backend, directory)
        return backend
    return _converted(directory)


def _converted(directory: Path) -> Any:
    """Lets transformers convert SentencePiece or vocabulary files if there is no tokenizer.json."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
        return tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    except (OSError, ValueError, AttributeError) as e:
        raise ModelNotFoundError(
            f"{directory} has neither a tokenizer.json nor files to convert to one."
        ) from e


def _config(directory: Path) -> dict[str, Any]:
    path = directory / "tokenizer_config.json"
    check_size(path)
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}


def _special_names(directory: Path) -> set[str]:
    config = _config(directory)
    path = directory / "special_tokens_map.json"
    if path.is_file():
        config = {**json.loads(path.read_text("utf-8")), **config}
    names = {_token_content(config.get(role), "") for role in _ROLES} - {""}
    return names or set(_USUAL_NAMES)


def _token_content(value: Any, default: str) -> str:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else default
