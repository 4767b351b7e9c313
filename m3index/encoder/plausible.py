"""Whether the files of a model can be what they say, before anything is made from them. A model directory may
come from a stranger: a number in it must not become gigabytes or hours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from m3index.errors import MismatchError

MAX_JSON = 16 << 20
MAX_TOKENIZER = 128 << 20
MAX_OBJECTS = 20_000
"""The JSON objects in tokenizer.json: added tokens, and steps of the normalizer, each of some kilobytes."""

MAX_STEPS = 256
_GROUP_QUANTIFIER = re.compile(r"[*+]|\{\d*,\d*\}|\{\d+\}")
_LARGEST: Mapping[str, int] = {
    "num_hidden_layers": 1_000, "num_attention_heads": 1_024, "hidden_size": 1 << 16, "dim": 1 << 16,
    "d_model": 1 << 16, "intermediate_size": 1 << 20, "vocab_size": 1 << 24, "type_vocab_size": 1 << 10,
    "max_position_embeddings": 1 << 24,
}  # fmt: skip


def check_config(config: Mapping[str, Any], directory: Path, weight_bytes: int) -> None:
    """Raises MismatchError if config.json cannot describe these weights: each number that it gives takes at
    least so many bytes of weights."""
    for name, most in _LARGEST.items():
        value = config.get(name)
        if value is None:
            continue
        least = 0 if name == "type_vocab_size" else 1  # DeBERTa has no types
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise MismatchError(
                f"{directory}: {name} in config.json is {_short(value)}, not {least} to {most:,}."
            )
    width = _whole(config, "hidden_size", "dim", "d_model")
    heads = _whole(config, "num_attention_heads", "n_heads")
    if heads and width % heads and not config.get("head_dim"):
        raise MismatchError(f"{directory}: {width} dimensions cannot be divided among {heads} heads.")
    layers, words = _whole(config, "num_hidden_layers"), _whole(config, "vocab_size")
    inner = _whole(config, "intermediate_size")
    embedded = _whole(config, "embedding_size") or width
    for what, least in (
        (f"{layers:,} layers", layers * width * width),
        (f"a vocabulary of {words:,} tokens", words * embedded),
        (f"{inner:,} intermediate dimensions", inner * width),
    ):
        if least // 2 > weight_bytes:  # half a byte for a weight
            raise MismatchError(
                f"{directory}: config.json says {what}, for which its weights ({weight_bytes:,} bytes) are "
                "too small. Check that the directory holds the complete model."
            )


def check_size(path: Path, most: int = MAX_JSON) -> None:
    """Raises MismatchError for a file that is too large to be what its name says."""
    if path.is_file() and (size := path.stat().st_size) > most:
        raise MismatchError(f"{path} has {size:,} bytes; at most {most:,} are read.")


def check_tokenizer_file(path: Path) -> None:
    """Raises MismatchError for a tokenizer.json that would take too much to read."""
    check_size(path, MAX_TOKENIZER)
    objects = path.read_bytes().count(b"{")
    if objects > MAX_OBJECTS:
        raise MismatchError(f"{path} has {objects:,} JSON objects; at most {MAX_OBJECTS:,} are read.")


def check_tokenizer(backend: Any, directory: Path) -> None:
    """Raises MismatchError for a tokenizer that can take hours for a text."""
    for part in (backend.normalizer, backend.pre_tokenizer):
        state = json.loads(part.__getstate__()) if part is not None else {}
        steps = 0
        for name, value in _items(state):
            steps += name == "type"
            if name == "Regex" and backtracks(str(value)):
                raise MismatchError(
                    f"{directory}: the pattern {_short(value)} of its tokenizer repeats what repeats, which "
                    "can take hours for a text."
                )
        if steps > MAX_STEPS:
            raise MismatchError(
                f"{directory}: its tokenizer has {steps:,} steps; at most {MAX_STEPS} are run."
            )


def backtracks(pattern: str) -> bool:
    """Whether a group that contains alternatives or repetitions is itself repeated, as in `(a+)+` or
    `(a|aa)*`: the time can then double with each character of a text."""
    plain = re.sub(r"\\.", "x", pattern, flags=re.DOTALL)
    plain = re.sub(r"\[(?:\[[^\]]*\]|[^\[\]])*\]", "x", plain)  # classes of characters
    groups: list[bool] = []
    position = 0
    while position < len(plain):
        character = plain[position]
        position += 1
        if character == "(":
            groups.append(False)
            marks = re.match(r"\?(?:[:=!>]|<[=!]|[a-z-]+:?|<\w+>)", plain[position:])
            position += marks.end() if marks else 0
        elif character == ")":
            varies = groups.pop() if groups else False
            if varies and _GROUP_QUANTIFIER.match(plain, position):
                return True
            if groups:
                groups[-1] = groups[-1] or varies
        elif groups and (character in "|*+?" or _GROUP_QUANTIFIER.match(plain, position - 1)):
            groups[-1] = True
    return False


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name, inner
            yield from _items(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _items(inner)


def _whole(config: Mapping[str, Any], *names: str) -> int:
    return next((config[name] for name in names if isinstance(config.get(name), int)), 0)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
