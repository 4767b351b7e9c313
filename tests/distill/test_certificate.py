"""Who may share a space: the certificate, its bars, and what the encoder makes of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest

from m3index.distill import agreement
from m3index.distill.agreement import Pair
from m3index.distill.certificate import read_pairs
from m3index.encoder import certificate as certificates
from m3index.encoder import layout
from m3index.encoder.load import load
from m3index.errors import UsageError
from m3index.types import SparseRows


def made(directory: Path, **changes: Any) -> dict[str, Any]:
    """A certificate for the model in `directory`, as good as needed."""
    model = {"dim": 32, "heads": ["dense", "lexical", "colbert"]}
    found: dict[str, Any] = {
        "version": certificates.VERSION,
        "teacher": {"space_id": "t" * 32, "name": "the-teacher", **model},
        "student": {"space_id": layout.space_digest(layout.read(directory)), **model},
        "agreement": {"student": {"mean_cosine": 0.95, "token_overlap": 0.9}},
        "retrieval": [],
    }
    for path, value in changes.items():
        place = found
        *parents, last = path.split("__")
        for name in parents:
            place = place[name]
        place[last] = value
    (directory / certificates.NAME).write_text(json.dumps(found), "utf-8")
    return found


@pytest.fixture
def student(tmp_path: Path) -> Path:
    return models.write_m3(tmp_path / "student")


def space(path: Path, **options: Any) -> str:
    return load(str(path), device="cpu", **options).info.space_id


def test_without_a_certificate_a_space_of_its_own(student: Path) -> None:
    assert space(student) == layout.space_digest(layout.read(student))


def test_a_good_certificate_gives_the_teachers_space(student: Path) -> None:
    own = load(str(student), device="cpu").info
    assert not certificates.shortfalls(made(student))
    assert space(student) == "t" * 32
    assert load(str(student), device="cpu").info.encoder_id == own.encoder_id


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"agreement__student__mean_cosine": 0.85}, "mean cosine 0.850"),
        ({"agreement__student__token_overlap": 0.5}, "token overlap 0.500"),
        ({"agreement__student__token_overlap": None}, "token overlap 0.000"),
        ({"student__dim": 16}, "16 dimensions"),
        ({"student__heads": ["dense"]}, "no lexical head"),
        ({"teacher__heads": ["dense"]}, "the teacher has none"),
        (
            {
                "retrieval": [
                    {
                        "collection": collection,
                        "dense": {
                            "teacher": {"ndcg_10": 0.6},
                            "student_queries": {"ndcg_10": queries},
                            "teacher_queries": {"ndcg_10": 0.6},
                        },
                    }
                    for collection, queries in (("de", 0.6), ("th", 0.5))
                ]
            },
            "nDCG@10 0.500 on th with student queries",
        ),
    ],
)
def test_below_a_bar_it_is_refused(student: Path, changes: dict[str, Any], reason: str) -> None:
    [said] = certificates.shortfalls(made(student, **changes))
    assert reason in said
    assert space(student) == layout.space_digest(layout.read(student))


def test_a_certificate_is_of_these_weights_alone(student: Path, tmp_path: Path) -> None:
    made(student)
    other = models.write_m3(tmp_path / "other", seed=9)
    shutil.copyfile(student / certificates.NAME, other / certificates.NAME)
    assert space(other) != "t" * 32


def test_other_settings_are_another_space(student: Path) -> None:
    made(student)
    assert space(student, dim=16) != "t" * 32
    assert space(student, query_prompt="query: ") != "t" * 32


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 1}'])
def test_what_cannot_be_read_is_no_certificate(student: Path, text: str) -> None:
    (student / certificates.NAME).write_text(text, "utf-8")
    assert certificates.read(student) is None
    assert space(student) == layout.space_digest(layout.read(student))


class TestAgreement:
    @staticmethod
    def rows(*rows: dict[int, float]) -> SparseRows:
        return SparseRows(
            np.cumsum([0, *map(len, rows)], dtype=np.int64),
            np.array([t for row in rows for t in sorted(row)], np.int32),
            np.array([row[t] for row in rows for t in sorted(row)], np.float32),
        )

    def test_token_overlap_counts_the_teachers_heaviest(self) -> None:
        teacher = self.rows({1: 5, 2: 4, 3: 3, 4: 2, 5: 1, 6: 0.5}, {7: 1}, {}, {})
        student = self.rows({1: 1, 2: 2, 3: 3, 8: 9, 9: 9, 6: 0.1}, {}, {}, {1: 1})
        assert agreement.token_overlap(student, teacher).tolist() == [0.6, 0.0, 1.0, 0.0]

    def test_weight_correlation_is_over_the_union(self) -> None:
        a, b = self.rows({1: 1, 2: 2}, {3: 3}), self.rows({1: 2, 4: 1}, {3: 6})
        x, y = [1, 2, 0, 3], [2, 0, 1, 6]
        assert agreement.weight_correlation(a, b) == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-6)
        assert agreement.weight_correlation(a, a) == pytest.approx(1)

    def test_pairs_correlate_with_teacher_and_people(self) -> None:
        pairs = [Pair("a", "b", gold) for gold in (1.0, 2.0, 3.0, 4.0)]
        cosines = {
            "teacher": np.array([0.1, 0.2, 0.4, 0.3], np.float32),
            "student": np.array([0.1, 0.2, 0.3, 0.4], np.float32),
        }
        found = agreement.pair_figures(cosines, pairs)
        assert found["student"]["gold_spearman"] == pytest.approx(1)
        assert found["student"]["spearman"] == found["teacher"]["gold_spearman"] == pytest.approx(0.8)


def test_pairs_with_and_without_scores(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("score\ta\tb\n4.5\tx\ty\n1\tz\tw\n", "utf-8")
    assert read_pairs(path) == [Pair("x", "y", 4.5), Pair("z", "w", 1.0)]
    path.write_text("x\ty\nz\tw\n", "utf-8")
    assert read_pairs(path) == [Pair("x", "y", None), Pair("z", "w", None)]
    path.write_text("1\tx\ty\nmuch\tz\tw\n", "utf-8")
    with pytest.raises(UsageError, match="2: the score"):
        read_pairs(path)
