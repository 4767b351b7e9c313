"""Model directories of strangers: a plain error with exit code 13, at once; nothing grows with them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from models import write_m3, write_sentence_xlmr
from terminal import process_environment

from m3index.encoder.load import load
from m3index.encoder.plausible import MAX_OBJECTS, backtracks
from m3index.errors import MismatchError

LIMIT = """
import resource, sys, time
from m3index.encoder.load import load
from m3index.errors import M3IndexError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.process_time()
try:
    load(sys.argv[1], device="cpu").encode_documents(["fox"])
    said = "0 encoded"
except M3IndexError as error:
    said = f"{int(error.exit_code)} {error}"
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
print(grown, int(time.process_time() - start), said)
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sentence_xlmr(tmp_path_factory.mktemp("models") / "dense", seed=7)


@pytest.fixture
def model(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "model"))


def change(path: Path, edit: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text("utf-8"))
    edit(content)
    path.write_text(json.dumps(content), "utf-8")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("num_hidden_layers", 10**9, "num_hidden_layers in config.json is 1000000000, not 1 to 1,000"),
        ("num_hidden_layers", 900, "900 layers"),
        ("num_hidden_layers", 0, "num_hidden_layers"),
        ("num_attention_heads", 0, "num_attention_heads"),
        ("num_attention_heads", 7, "cannot be divided among 7 heads"),
        ("num_attention_heads", "two", "num_attention_heads in config.json is 'two'"),
        ("vocab_size", 10**7, "vocabulary of 10,000,000 tokens"),
        ("intermediate_size", 10**6, "1,000,000 intermediate dimensions"),
        ("hidden_size", 10**12, "hidden_size"),
        ("max_position_embeddings", 10**12, "max_position_embeddings"),
        ("type_vocab_size", True, "type_vocab_size"),
    ],
)
def test_numbers_that_the_weights_cannot_have(model: Path, name: str, value: object, said: str) -> None:
    path = model / "config.json"
    change(path, lambda config: config.update({name: value}))
    with pytest.raises(MismatchError) as refused:
        load(str(model), device="cpu").encode_documents(["fox"])
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[{}]", "JSON files lack something"),
        ('{"a": 1}', "JSON files lack something"),
        ('[{"idx": "x", "type": "a.Transformer", "path": ""}]', "JSON files lack something"),
        ("[" * 100_000, "not valid JSON"),
        ("{", "not valid JSON"),
    ],
)
def test_a_list_of_modules_that_is_none(model: Path, content: str, said: str) -> None:
    (model / "modules.json").write_text(content)
    with pytest.raises(MismatchError, match=said):
        load(str(model), device="cpu")


def test_a_config_that_is_deep_or_large(model: Path) -> None:
    path = model / "config.json"
    path.write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(MismatchError, match="not valid JSON"):
        load(str(model), device="cpu")
    path.write_text(json.dumps({"a": "x" * (17 << 20)}))
    with pytest.raises(MismatchError, match="are read"):
        load(str(model), device="cpu")


def test_ids_beyond_the_vocabulary(model: Path) -> None:
    def add(tokenizer: Any) -> None:
        token = {"id": 5_000, "content": "fox", "single_word": False, "lstrip": False, "rstrip": False}
        tokenizer["added_tokens"].append({**token, "normalized": False, "special": False})
        vocabulary = tokenizer["model"]["vocab"]
        if isinstance(vocabulary, dict):
            vocabulary["fox"] = 5_000

    change(model / "tokenizer.json", add)
    encoder = load(str(model), device="cpu")
    if (
        max(int(row.max()) for row in encoder.tokenizer.document_ids(["fox"]))
        < encoder._layout.config["vocab_size"]
    ):
        pytest.skip("this tokenizer renumbers added tokens")
    with pytest.raises(MismatchError, match="not of the same model"):
        encoder.encode_documents(["fox"])


def run(model: Path) -> tuple[int, int, str]:
    """MiB, CPU seconds, and what is said, of a process that encodes a text."""
    done = subprocess.run(
        [sys.executable, "-c", LIMIT, str(model)],
        capture_output=True, text=True, timeout=250, check=True, env=process_environment(),
    )  # fmt: skip
    grown, seconds, said = done.stdout.split(maxsplit=2)
    return int(grown), int(seconds), said


def test_a_tokenizer_of_a_million_steps(model: Path) -> None:
    """Read at all, it takes gigabytes and minutes."""
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}

    def add(tokenizer: Any) -> None:
        tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [step] * 1_000_000}

    change(model / "tokenizer.json", add)
    grown, _, said = run(model)
    assert said.startswith("13 ")
    assert f"at most {MAX_OBJECTS:,} are read" in said or "are read" in said
    assert grown < 1_000

    change(model / "tokenizer.json", lambda t: t["normalizer"].update(normalizers=[step] * 1_000))
    with pytest.raises(MismatchError, match="at most 256 are run"):
        load(str(model), device="cpu")


def test_a_pattern_that_backtracks(model: Path) -> None:
    pattern = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    change(model / "tokenizer.json", lambda tokenizer: tokenizer.update(pre_tokenizer=pattern))
    start = time.process_time()
    with pytest.raises(MismatchError, match="repeats what repeats"):
        load(str(model), device="cpu").encode_documents(["a" * 40 + "b"])
    assert time.process_time() - start < 20


KNOWN = [
    " {2,}",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re)?|\p{N}{1,3}",
    r" ?[^(\s|[.,!?…。，、।۔،])]+",
    r"\(a+\)+",
    r"[(a+)]+",
    "(?:ab)+",
]  # fmt: skip


@pytest.mark.parametrize("pattern", KNOWN)
def test_patterns_of_known_tokenizers(pattern: str) -> None:
    assert not backtracks(pattern)


@pytest.mark.parametrize(
    "pattern", ["(a+)+", "(a|aa)*", "((a*)b?)*", "(?:x{1,})+", "(?<n>a|b|ab)*$", "(a{2,5}){3,}"]
)
def test_patterns_that_backtrack(pattern: str) -> None:
    assert backtracks(pattern)


def test_heads_and_pickles_are_read_as_before(tmp_path: Path) -> None:
    model = write_m3(tmp_path / "m3")
    assert load(str(model), device="cpu").encode_documents(["fox"]).dense.shape[0] == 1
