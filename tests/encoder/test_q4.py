"""The reader of models in 4-bit blocks, on a small file of the same layout."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3index.encoder import e5
from m3index.encoder.q4 import Q4Model
from m3index.errors import MismatchError


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    path = tmp_path_factory.mktemp("q4") / "small.bin"
    return path, models.write_e5s1(path)


def read_all(path: Path) -> None:
    model = Q4Model(path)
    for _, name, shape in e5.tensors(model.config):
        list(model.weights(name, shape))


def test_what_the_file_says(small: tuple[Path, dict[str, np.ndarray]]) -> None:
    model = Q4Model(small[0])
    config, tokens = model.config, model.tokens
    sizes = (config.hidden, config.layers, config.heads, config.inner, config.positions, config.types)
    assert sizes == models.E5S1_SIZES
    assert config.vocabulary == len(tokens.pieces) + models.E5S1_SPARE_ROWS
    assert config.eps == 1e-12
    assert (tokens.bos, tokens.pad, tokens.eos, tokens.unk) == (0, 1, 2, 3)
    assert [piece for piece, _ in tokens.pieces[:4]] == list(models.XLMR_SPECIALS)
    assert tokens.pieces[-1] == ("<mask>", 0.0)
    assert dict(tokens.pieces)["狸"] == -12
    assert tokens.replacements == models.E5S1_REPLACEMENTS


def test_every_weight(small: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, expected = small
    model = Q4Model(path)
    names = [(name, shape) for _, name, shape in e5.tensors(model.config)]
    assert sorted(name for name, _ in names) == sorted(expected)
    for name, shape in names:
        weights = np.concatenate(list(model.weights(name, shape))).reshape(shape)
        np.testing.assert_array_equal(weights, expected[name].astype(np.float16), name)


def test_a_tensor_of_another_shape(small: tuple[Path, dict[str, np.ndarray]]) -> None:
    model = Q4Model(small[0])
    for name, shape in (("l0.q.w", (32, 64)), ("l9.q.w", (32, 32))):
        with pytest.raises(MismatchError, match=f"has no tensor {name} of 32 x"):
            list(model.weights(name, shape))


@pytest.mark.parametrize(
    ("at", "data", "reason"),
    [
        (0, b"GGUF", "does not begin with E5S1"),
        (4, b"\2", "its version is 2"),
        (8, b"\0", "its sizes make no sense"),
        (40, b"\7", "its blocks have 7 weights"),
        (44, b"\xff\xff\xff", "the numbers of its pieces do not fit together"),
        (52, b"\xff\xff\xff", "the numbers of its pieces do not fit together"),
        (72, b"\1", "the offsets of its pieces are out of order"),
    ],
)
def test_another_file(
    small: tuple[Path, dict[str, np.ndarray]], tmp_path: Path, at: int, data: bytes, reason: str
) -> None:
    content = bytearray(small[0].read_bytes())
    content[at : at + len(data)] = data
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(MismatchError, match=reason):
        read_all(path)


def test_no_file_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="cannot be read"):
        Q4Model(tmp_path / "model.bin")
    (tmp_path / "model.bin").touch()
    with pytest.raises(MismatchError, match="does not begin with E5S1"):
        Q4Model(tmp_path / "model.bin")


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_is_cut_off(
    small: tuple[Path, dict[str, np.ndarray]], tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    content = small[0].read_bytes()
    path = tmp_path_factory.mktemp("cut") / "model.bin"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(MismatchError):
        read_all(path)


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 12_000), byte=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_changes_a_value(
    small: tuple[Path, dict[str, np.ndarray]], tmp_path_factory: pytest.TempPathFactory, at: int, byte: int
) -> None:
    content = bytearray(small[0].read_bytes())
    content[at % len(content)] = byte
    path = tmp_path_factory.mktemp("changed") / "model.bin"
    path.write_bytes(content)
    try:
        read_all(path)
    except MismatchError as e:
        refusal = e
    else:
        return
    assert "no complete E5S1 model" in str(refusal)
