from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from m3index.distill import losses
from m3index.distill.losses import Outputs
from m3index.distill.options import RECIPES, Loss, Objective
from m3index.options import OptionError


def unit(n: int, width: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


ALL = torch.ones(6, dtype=torch.bool)


def test_cosine_is_one_minus_the_mean_cosine() -> None:
    s, t = unit(4, 8, 0), unit(4, 8, 1)
    assert losses.cosine(s, t).item() == pytest.approx(1 - F.cosine_similarity(s, t).mean().item(), abs=1e-6)
    assert losses.cosine(t, t).item() == pytest.approx(0, abs=1e-6)


def test_similarity_compares_pairs_of_any_widths() -> None:
    s, t = unit(3, 4, 0), unit(3, 9, 1)
    by_hand = [float((s[i] @ s[j] - t[i] @ t[j]) ** 2) for i in range(3) for j in range(3) if i != j]
    assert losses.similarity(s, t).item() == pytest.approx(sum(by_hand) / 6, rel=1e-5)
    rotation = torch.linalg.qr(torch.randn(9, 9, generator=torch.Generator().manual_seed(2)))[0]
    assert losses.similarity(t @ rotation, t).item() == pytest.approx(0, abs=1e-10)


def test_one_text_has_no_pairs() -> None:
    s = unit(1, 4, 0).requires_grad_()
    assert losses.similarity(s, unit(1, 4, 1)).item() == 0.0


def test_lexical_is_in_units_of_the_teachers_variance_and_blind_to_special_tokens() -> None:
    t = torch.tensor([0.5, 1.0, 0.0, 2.0, 9.0, 9.0])
    s = torch.tensor([0.7, 1.0, 0.0, 1.5, 0.0, 3.0])
    spoken = torch.tensor([0, 1, 2, 3])
    expected = ((s - t)[:4] ** 2).mean() / t[:4].var(correction=0)
    assert losses.lexical(s, t, spoken).item() == pytest.approx(expected.item(), rel=1e-6)
    assert losses.lexical(s * 10, t * 10, spoken).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_token_that_fell_silent_is_heard_again() -> None:
    s = torch.tensor([-1.0, -1.0], requires_grad=True)
    losses.lexical(s, torch.tensor([1.0, -3.0]), torch.ones(2, dtype=torch.bool)).backward()
    assert s.grad is not None
    assert s.grad[0] < 0  # the teacher has a weight: the student's rises
    assert s.grad[1] == 0  # neither has: silence is right


def test_tokens_leave_out_what_is_not_spoken() -> None:
    s, t = unit(6, 5, 0), unit(6, 5, 1)
    spoken = torch.tensor([1, 2, 3, 4])
    assert losses.tokens(t, t, ALL).item() == pytest.approx(0, abs=1e-6)
    expected = (1 - F.cosine_similarity(s[1:5], t[1:5])).mean().item()
    assert losses.tokens(s, t, spoken).item() == pytest.approx(expected, rel=1e-5)
    assert losses.tokens(s, t, ~ALL).item() == 0.0


def test_standardised_cosines_see_through_what_all_vectors_share() -> None:
    generator = torch.Generator().manual_seed(0)
    t, s = torch.randn(64, 8, generator=generator), torch.randn(64, 8, generator=generator)
    shared, sizes = 30 * torch.ones(8), torch.tensor([100.0, *[1.0] * 7])
    plain = losses.cosine(*(F.normalize(x * sizes + shared, dim=-1) for x in (s, t)))
    assert plain < 0.7
    unlike = losses.cosine(*losses.standardised(s * sizes + shared, t * sizes + shared))
    assert unlike > 0.8
    assert losses.cosine(
        *losses.standardised(t * sizes + shared, t * sizes + shared)
    ).item() == pytest.approx(0, abs=1e-6)
    by_hand = (t - t.mean(0)) / t.std(0, correction=0)
    torch.testing.assert_close(losses.standardised(s, t)[1], F.normalize(by_hand, dim=-1))


def test_one_vector_or_equal_vectors_are_standardised_without_an_overflow() -> None:
    s = unit(3, 4, 0).requires_grad_()
    for t in (unit(1, 4, 1), unit(1, 4, 1).expand(3, 4)):
        found = losses.cosine(*losses.standardised(s[: len(t)], t))
        found.backward()
        assert torch.isfinite(found)
        assert s.grad is not None
        assert torch.isfinite(s.grad).all()


@pytest.mark.parametrize("standardise", [False, True])
def test_states_are_compared_as_the_objective_says(standardise: bool) -> None:
    s, t = 5 * unit(6, 5, 0) + 3, 2 * unit(6, 5, 1) + 3
    spoken = torch.tensor([False, True, True, True, True, False])
    objective = Objective(hidden=1.0, layers=1.0, standardised=standardise)
    found = losses.terms(objective, Outputs(hidden=s, layers=(s,)), Outputs(hidden=t, layers=(t,)), spoken)
    z = (lambda x: (x - t[1:5].mean(0)) / t[1:5].std(0, correction=0)) if standardise else (lambda x: x)
    expected = 1 - F.cosine_similarity(z(s[1:5]), z(t[1:5])).mean()
    torch.testing.assert_close(found["hidden"], expected)
    torch.testing.assert_close(found["layers"], expected)
    assert losses.describe(objective).get("standardised", False) is standardise


def test_matryoshka_takes_the_dense_terms_at_each_width() -> None:
    s, t = unit(4, 8, 0), unit(4, 8, 1)
    at = [losses.cosine(F.normalize(s[:, :w], dim=-1), F.normalize(t[:, :w], dim=-1)) for w in (8, 2, 4)]
    found = losses.terms(Objective(cosine=1.0, matryoshka=(2, 4, 8)), Outputs(s), Outputs(t), ALL)
    assert found["cosine"].item() == pytest.approx(torch.stack(at).mean().item(), rel=1e-5)


def test_matryoshka_similarity_is_with_the_whole_teacher() -> None:
    s, t = unit(4, 8, 0), unit(4, 5, 1)
    cut = losses.similarity(F.normalize(s[:, :2], dim=-1), t)
    found = losses.terms(Objective(similarity=1.0, matryoshka=(2,)), Outputs(s), Outputs(t), ALL)
    expected = (losses.similarity(s, t) + cut) / 2
    assert found["similarity"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_total_weighs_the_terms() -> None:
    s, t = Outputs(unit(3, 4, 0), torch.rand(6)), Outputs(unit(3, 4, 1), torch.rand(6))
    objective = Objective(cosine=2.0, lexical=0.5)
    found = losses.terms(objective, s, t, ALL)
    assert set(found) == {"cosine", "lexical"}
    expected = 2 * found["cosine"] + 0.5 * found["lexical"]
    assert losses.total(objective, found).item() == pytest.approx(expected.item(), rel=1e-6)


def test_recipes_and_their_needs() -> None:
    assert RECIPES["m3"].per_token
    assert RECIPES["mse"].same_width
    assert not RECIPES["mse"].per_token
    assert not RECIPES["pair-cosine"].same_width
    assert losses.describe(RECIPES["mse"]) == {"mse": 1.0}


def test_given_weights_and_widths_take_the_place_of_the_recipes() -> None:
    assert Loss().objective == RECIPES["m3"]
    assert Loss(w_colbert=0, w_layers=2, matryoshka="64, 16,64").objective == Objective(
        cosine=1.0, similarity=1.0, lexical=0.1, layers=2.0, matryoshka=(16, 64)
    )
    names = {"w_cosine": "cosine", "w_mse": "mse", "w_similarity": "similarity", "w_lexical": "lexical"}
    names |= {"w_colbert": "multi_vector", "w_hidden": "hidden", "w_layers": "layers"}
    for option, term in names.items():
        assert Loss(**{option: 7.0}).objective.weights()[term] == 7.0
        with pytest.raises(OptionError, match=f"^{option} takes a number from 0 up"):
            Loss(**{option: -1.0})
    for widths in ("0,8", "big", "8,"):
        with pytest.raises(OptionError, match=f"^matryoshka {widths}: "):
            Loss(matryoshka=widths)
