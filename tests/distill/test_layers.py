from __future__ import annotations

from pathlib import Path

import models
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m3index.distill.layers import LayerChoice, candidates, spread
from m3index.distill.network import keep, trainable
from m3index.distill.options import Student
from m3index.encoder import layout
from m3index.errors import UsageError
from m3index.options import OptionError


def test_the_published_choice_of_24_layers() -> None:
    assert spread(24, 8) == (0, 3, 7, 10, 13, 16, 20, 23)
    assert LayerChoice().sets(24) == [spread(24, 8)]


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 48).flatmap(lambda total: st.tuples(st.just(total), st.integers(2, total))))
def test_a_spread_ascends_and_keeps_first_and_last(shape: tuple[int, int]) -> None:
    total, count = shape
    for chosen in [spread(total, count), *candidates(total, count)]:
        assert len(chosen) == count
        assert list(chosen) == sorted(set(chosen))
        assert chosen[0] >= 0
        assert chosen[-1] <= total - 1
    assert spread(total, count)[0] == 0
    assert spread(total, count)[-1] == total - 1
    assert len(candidates(total, count)) <= 40


def test_few_candidates_are_all_that_keep_both_ends() -> None:
    assert candidates(6, 3) == [(0, 1, 5), (0, 2, 5), (0, 3, 5), (0, 4, 5)]


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("8", LayerChoice(8)),
        ("0,3,7", LayerChoice(layers=(0, 3, 7))),
        ("auto", LayerChoice(auto=True)),
        ("auto:4", LayerChoice(4, auto=True)),
    ],
)
def test_parse(text: str, choice: LayerChoice) -> None:
    assert LayerChoice.parse(text) == Student(out="s", layers=text).layer_choice == choice


@pytest.mark.parametrize("text", ["", "a", "auto:x", "1,,2"])
def test_parse_refuses(text: str) -> None:
    with pytest.raises(OptionError, match=r"^layers"):
        Student(out="s", layers=text)


@pytest.mark.parametrize("choice", [LayerChoice(7), LayerChoice(layers=(0, 6)), LayerChoice(layers=(3, 1))])
def test_what_the_model_has_not_is_refused(choice: LayerChoice) -> None:
    with pytest.raises(UsageError, match="layers"):
        choice.sets(6)


def test_keep_leaves_these_layers_in_order(teacher: Path) -> None:
    network = trainable(layout.read(teacher))
    before = [layer.output.dense.weight for layer in network.model.encoder.layer]
    keep(network.model, (0, 2, 5))
    after = [layer.output.dense.weight for layer in network.model.encoder.layer]
    assert all(torch.equal(a, before[i]) for a, i in zip(after, (0, 2, 5), strict=True))
    assert network.model.config.num_hidden_layers == 3


def test_decoders_have_layers_too(tmp_path: Path) -> None:
    network = trainable(layout.read(models.write_sentence_mistral(tmp_path)))
    keep(network.model, (1,))
    assert len(network.model.layers) == 1
