"""The whole of `distill`, on random models: 6 -> 3 layers in seconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import models
import numpy as np
import pytest
import torch
from distill.conftest import distill

from m3index import schema
from m3index.distill import card
from m3index.distill.loop import Stopped
from m3index.distill.run import Distilled
from m3index.encoder.load import load
from m3index.errors import M3IndexError, MismatchError, MissingHeadError, UsageError


@pytest.fixture(scope="module")
def trained(teacher: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Distilled:
    folder = tmp_path_factory.mktemp("trained")
    pairs = folder / "pairs.tsv"
    pairs.write_text(
        "score\tsentence1\tsentence2\n5\tthe lazy dog\tthe dog\n1\tle renard\ta book\n3\tel perro\tthe dog\n",
        "utf-8",
    )
    beir = folder / "tiny"
    (beir / "qrels").mkdir(parents=True)
    rows = [{"_id": str(i), "text": f"{word} {word} fox"} for i, word in enumerate(("dog", "book", "search"))]
    (beir / "corpus.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    (beir / "queries.jsonl").write_text(
        '{"_id": "q", "text": "book"}\n{"_id": "r", "text": "dog"}\n', "utf-8"
    )
    (beir / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t1\nr\t0\t1\n", "utf-8")
    return distill(
        teacher,
        corpus,
        folder / "student",
        eval_pairs=[str(pairs)],
        eval_retrieval=[str(beir)],
        log_dir=folder / "log",
    )


def certificate(done: Distilled) -> dict[str, Any]:
    assert done.certificate is not None
    return done.certificate


def test_training_gains_what_the_layers_lost(trained: Distilled) -> None:
    found = certificate(trained)["agreement"]
    before, after = found["untrained"], found["student"]
    assert after["mean_cosine"] - before["mean_cosine"] >= 0.25
    assert after["token_cosine"] - before["token_cosine"] >= 0.3
    assert after["token_overlap"] > before["token_overlap"] + 0.1
    assert after["weight_correlation"] > before["weight_correlation"] + 0.2


def test_training_all_heads_keeps_what_dense_alone_loses(
    trained: Distilled, teacher: Path, corpus: Path, tmp_path: Path
) -> None:
    # Weights of almost nothing leave the heads in the student, so that they can be measured.
    alone = distill(teacher, corpus, tmp_path / "student", w_lexical=1e-9, w_colbert=1e-9)
    all_heads, dense_only = (certificate(d)["agreement"]["student"] for d in (trained, alone))
    assert all_heads["token_cosine"] >= dense_only["token_cosine"] + 0.08
    assert all_heads["token_overlap"] > dense_only["token_overlap"]


def test_without_a_lexical_loss_the_tokens_agree_less(
    trained: Distilled, teacher: Path, corpus: Path, tmp_path: Path
) -> None:
    done = distill(teacher, corpus, tmp_path / "student", w_lexical=1e-9)
    without, with_it = (certificate(d)["agreement"]["student"]["token_overlap"] for d in (done, trained))
    assert without < with_it - 0.02


def test_the_certificate_keeps_to_its_schema_and_is_what_was_returned(trained: Distilled) -> None:
    written = json.loads((trained.out / "certificate.json").read_text("utf-8"))
    assert written == certificate(trained)
    jsonschema.validate(written, schema.load("certificate.schema.json"))
    assert written["training"]["layers"] == [0, 2, 5]
    assert written["training"]["trained_length"] == 64
    assert set(written["agreement"]["student"]["languages"]) == {"en", "fr", "de", "ru", "es", "zh"}
    assert written["retrieval"][0]["hybrid"]["student_queries"]["ndcg_10"] > 0
    assert written["pairs"][0]["teacher"]["spearman"] == pytest.approx(1.0)
    assert [pairs["name"] for pairs in written["pairs"]] == ["pairs.tsv"]


def test_the_card_has_a_row_for_each_set_and_their_mean(trained: Distilled) -> None:
    found = certificate(trained)
    one_set = card.of_certificate(found)
    assert "| pairs.tsv | 3 |" in one_set
    assert "| mean |" not in one_set
    second = json.loads(json.dumps(found["retrieval"][0])) | {"collection": "other"}
    for mode in ("dense", "lexical", "hybrid"):
        second[mode]["student"]["ndcg_10"] = 0.25
        second[mode]["teacher"]["ndcg_10"] = 0.5
        found["retrieval"][0][mode]["student"]["ndcg_10"] = 0.75
        found["retrieval"][0][mode]["teacher"]["ndcg_10"] = 1.0
    two = card.of_certificate(found | {"retrieval": [found["retrieval"][0], second]})
    assert two.count("| other (2 queries, 3 documents) | 0.5000") == 3
    assert two.count(" | 50.0% |\n| mean | 0.7500 |") == 3
    assert two.count(" | 66.7% |\n") == 3
    without = second | {"lexical": {"teacher": second["lexical"]["teacher"]}}
    assert "## nDCG@10, lexical" in card.of_certificate(found | {"retrieval": [without]})


def test_the_encoder_loads_the_student_in_its_teachers_space(trained: Distilled, teacher: Path) -> None:
    student, whole = load(str(trained.out), device="cpu"), load(str(teacher), device="cpu")
    assert student.info.lexical
    assert student.info.multi_vector
    assert certificate(trained)["shares_space"]
    assert student.info.space_id == whole.info.space_id
    assert student.info.encoder_id != whole.info.encoder_id


def test_the_model_card_has_the_figures(trained: Distilled) -> None:
    card = (trained.out / "README.md").read_text("utf-8")
    found = certificate(trained)
    assert f"{found['agreement']['student']['mean_cosine']:.4f}" in card
    assert "layers 0, 2, 5" in card
    assert found["data"]["digest"] in card


def test_the_curve_has_a_line_for_each_step(trained: Distilled) -> None:
    rows = list(map(json.loads, (trained.out.parent / "log/training.jsonl").read_text("utf-8").splitlines()))
    assert [row["step"] for row in rows] == list(range(1, 101))
    assert {"loss", "cosine", "lexical", "multi_vector", "similarity"} <= set(rows[0])
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_nothing_is_left_beside_the_student(trained: Distilled) -> None:
    assert not trained.out.with_name("student.work").exists()


class Interrupt:
    """Says stop after so many steps."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


PLAIN = [("adamw", False, 0.5, step) for step in (4, 5, 6, 7)]
"""Half of the texts keep their words, and come from about the sixth step on."""


@pytest.mark.parametrize(
    ("optimizer", "cached", "replaced", "after"),
    [("adamw", False, 0.0, 7), ("adamw", True, 0.0, 7), ("muon", False, 0.0, 7), *PLAIN],
)
def test_resuming_equals_not_stopping_bit_for_bit(
    teacher: Path, small: Path, tmp_path: Path, optimizer: str, cached: bool, replaced: float, after: int
) -> None:
    def run(name: str, resume: bool = False, stop: Callable[[], bool] = lambda: False) -> Distilled:
        options = {"cache": tmp_path / "cache", "heads": "dense,lexical"} if cached else {}
        return distill(
            teacher, small, tmp_path / name, resume=resume, stop=stop, steps=12, accumulate=2, save_every=5,
            optimizer=optimizer, replace_words=replaced, plain_share=0.5, **options,
        )  # fmt: skip

    whole = run("whole")
    with pytest.raises(Stopped, match="--resume"):
        run("parts", stop=Interrupt(after))
    parts = run("parts", resume=True)
    files = ["model.safetensors", "sparse_linear.pt", *["colbert_linear.pt"] * (not cached)]
    for name in files:
        assert (whole.out / name).read_bytes() == (parts.out / name).read_bytes(), name
    assert [s["loss"] for s in whole.cursor.history] == [s["loss"] for s in parts.cursor.history]


def test_layer_by_layer_with_muon_and_strange_words(
    trained: Distilled, teacher: Path, corpus: Path, tmp_path: Path
) -> None:
    """Each layer of the student learns what the teacher's next one takes in: the tokens agree more."""
    done = distill(
        teacher, corpus, tmp_path / "student", w_layers=3.0, w_hidden=3.0, replace_words=0.3, optimizer="muon"
    )
    found, plain = certificate(done), certificate(trained)
    jsonschema.validate(found, schema.load("certificate.schema.json"))
    assert found["training"]["optimizer"] == "muon"
    assert found["training"]["replaced_words"] == 0.3
    assert found["data"]["digest"] != plain["data"]["digest"]
    before, after = found["agreement"]["untrained"], found["agreement"]["student"]
    assert after["mean_cosine"] - before["mean_cosine"] >= 0.25
    assert done.cursor.history[-1]["layers"] < done.cursor.history[0]["layers"] - 0.2


def test_layers_of_another_model_or_of_a_cache_cannot_be_compared(
    teacher: Path, small: Path, tmp_path: Path
) -> None:
    for options, words in (
        ({"student": str(teacher)}, "Leave out student"),
        ({"cache": tmp_path / "cache", "heads": "dense"}, "--heads dense,lexical"),
        ({"layers": "1"}, "at least two layers"),
    ):
        with pytest.raises(UsageError, match=words):
            distill(teacher, small, tmp_path / "s", w_layers=1.0, **options)


def test_resuming_another_run_is_refused(teacher: Path, small: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        distill(teacher, small, tmp_path / "s", steps=5, stop=Interrupt(2))
    with pytest.raises(MismatchError, match="another teacher"):
        distill(teacher, small, tmp_path / "s", steps=6, resume=True)


def test_a_stale_cache_is_refused(teacher: Path, small: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"cache": tmp_path / "cache", "heads": "dense,lexical", "steps": 2}
    distill(teacher, small, tmp_path / "one", **options)
    other = tmp_path / "other.jsonl"
    other.write_text("".join(small.read_text("utf-8").splitlines(keepends=True)[:150]), "utf-8")
    with pytest.raises(MismatchError, match=r"stale: data, inputs, tokens differ"):
        distill(teacher, other, tmp_path / "two", **options)


def test_a_cached_teacher_teaches_what_the_teacher_does(teacher: Path, small: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"heads": "dense,lexical", "steps": 5}
    online = distill(teacher, small, tmp_path / "one", **options)
    cached = distill(teacher, small, tmp_path / "two", cache=tmp_path / "cache", **options)
    a, b = ([step["loss"] for step in d.cursor.history] for d in (online, cached))
    assert a != b  # half precision
    assert a == pytest.approx(b, rel=2e-3)


def test_a_head_that_the_teacher_has_not_is_refused(corpus: Path, tmp_path: Path) -> None:
    plain = models.write_m3(tmp_path / "plain", multi_vector=False)
    with pytest.raises(MissingHeadError, match="no colbert head"):
        distill(plain, corpus, tmp_path / "s", heads="dense,colbert")


@pytest.mark.parametrize("recipe", ["mse", "pair-cosine"])
def test_recipes_for_layers(teacher: Path, corpus: Path, tmp_path: Path, recipe: str) -> None:
    done = distill(
        teacher, corpus, tmp_path / "s", recipe=recipe, steps=40, learning_rate=5e-4, heads="dense"
    )
    before, after = (certificate(done)["agreement"][name] for name in ("untrained", "student"))
    key = "mean_cosine" if recipe == "mse" else "pearson_random_pairs"
    assert after[key] > before[key]
    assert certificate(done)["student"]["heads"] == ["dense"]
    assert not (done.out / "sparse_linear.pt").exists()


class TestAnotherStudent:
    """BERT of 32 dimensions with a tokenizer of its own, from a teacher of 56."""

    @pytest.fixture
    def student(self, tmp_path: Path) -> Path:
        return models.write_sentence_bert(tmp_path / "bert")

    def test_per_token_losses_are_refused(
        self, teacher: Path, corpus: Path, student: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(MismatchError, match="tokenizer differs from the teacher's"):
            distill(teacher, corpus, tmp_path / "s", student=str(student))

    def test_pair_cosine_needs_no_projection(
        self, teacher: Path, corpus: Path, student: Path, tmp_path: Path
    ) -> None:
        done = distill(
            teacher, corpus, tmp_path / "s", student=str(student), recipe="pair-cosine",
            matryoshka="16", steps=40,
        )  # fmt: skip
        found = certificate(done)["agreement"]
        assert found["student"]["mean_cosine"] is None
        assert found["student"]["pearson_random_pairs"] > found["untrained"]["pearson_random_pairs"] + 0.05
        assert certificate(done)["student"]["dim"] == 32
        assert not certificate(done)["shares_space"]

    def test_mse_trains_a_projection_and_saves_it(
        self, teacher: Path, corpus: Path, student: Path, tmp_path: Path
    ) -> None:
        done = distill(
            teacher, corpus, tmp_path / "s", student=str(student), recipe="mse",
            steps=40, learning_rate=5e-4,
        )  # fmt: skip
        found = certificate(done)["agreement"]
        assert certificate(done)["student"]["dim"] == 56
        assert found["student"]["mean_cosine"] > found["untrained"]["mean_cosine"]
        kinds = [m["type"].rpartition(".")[2] for m in json.loads((done.out / "modules.json").read_text())]
        assert kinds == ["Transformer", "Pooling", "Normalize", "Dense", "Normalize"]

    def test_the_same_tokenizer_and_another_width_get_heads(
        self, teacher: Path, corpus: Path, tmp_path: Path
    ) -> None:
        narrow = models.write_sentence_xlmr(tmp_path / "narrow")
        found = certificate(distill(teacher, corpus, tmp_path / "s", student=str(narrow), steps=40))
        assert found["student"]["heads"] == ["dense", "lexical", "colbert"]
        assert found["student"]["dim"] == found["teacher"]["dim"] == 56
        after, before = found["agreement"]["student"], found["agreement"]["untrained"]
        assert after["token_cosine"] > before["token_cosine"]


class TestHeadsOnly:
    def test_from_a_teacher(self, teacher: Path, corpus: Path, tmp_path: Path) -> None:
        published = models.write_sentence_xlmr(tmp_path / "published")
        done = distill(
            teacher, corpus, tmp_path / "s", student=str(published), heads_only=True,
            heads="lexical", steps=40,
        )  # fmt: skip
        with_head, without = load(str(done.out), device="cpu"), load(str(published), device="cpu")
        texts = ["the quick brown fox", "le chien paresseux"]
        dense = [e.encode_documents(texts).dense for e in (with_head, without)]
        np.testing.assert_allclose(dense[0], dense[1], atol=1e-5)
        assert with_head.info.lexical
        assert certificate(done)["agreement"]["student"]["weight_correlation"] > 0.4

    def test_from_bm25_where_there_is_no_lexical_teacher(self, corpus: Path, tmp_path: Path) -> None:
        bert = models.write_sentence_bert(tmp_path / "bert")
        done = distill(None, corpus, tmp_path / "s", student=str(bert), heads_only=True)
        assert done.certificate is None
        encoder = load(str(done.out), device="cpu")
        [row] = [encoder.encode_documents(["the fox reads a book"]).lexical]
        assert row is not None
        weights = {encoder.token_texts([i])[0]: w for i, w in row.row(0).to_dict().items()}
        assert weights["fox"] > 0

    def test_needs_a_student(self, teacher: Path, corpus: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="heads_only trains heads of a student"):
            distill(teacher, corpus, tmp_path / "s", heads_only=True)


def test_auto_takes_the_best_set_of_layers(teacher: Path, small: Path, tmp_path: Path) -> None:
    def untrained(name: str, choice: str) -> tuple[list[int], float]:
        found = certificate(distill(teacher, small, tmp_path / name, layers=choice, steps=1))
        return found["training"]["layers"], found["agreement"]["untrained"]["mean_cosine"]

    chosen, best = untrained("auto", "auto:3")
    for i, layers in enumerate(["0,2,5", "0,3,5"]):
        assert best >= untrained(str(i), layers)[1]
    assert chosen[0] == 0
    assert chosen[-1] == 5


def test_texts_of_the_evaluation_are_not_trained_on(teacher: Path, small: Path, tmp_path: Path) -> None:
    texts = [json.loads(line)["text"] for line in small.read_text("utf-8").splitlines()]
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text(f"{texts[0]}\t{texts[1]}\n{texts[2].upper()}\t{texts[3]}\n", "utf-8")
    done = distill(teacher, small, tmp_path / "s", eval_pairs=[str(pairs)], steps=1)
    assert certificate(done)["data"]["excluded"] >= 4
    assert certificate(done)["pairs"][0]["student"]["gold_spearman"] is None


def test_an_output_directory_that_is_not_empty_is_refused(
    teacher: Path, corpus: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("precious", "utf-8")
    with pytest.raises(UsageError, match="already exists"):
        distill(teacher, corpus, tmp_path)


def test_a_loss_that_is_not_finite_ends_the_run(teacher: Path, small: Path, tmp_path: Path) -> None:
    with pytest.raises(M3IndexError, match="not finite"):
        distill(teacher, small, tmp_path / "s", learning_rate=1e30, steps=20)


def test_embeddings_stay_frozen_unless_asked(trained: Distilled, teacher: Path) -> None:
    from safetensors.torch import load_file

    name = "embeddings.word_embeddings.weight"
    before, after = (load_file(str(path / "model.safetensors"))[name] for path in (teacher, trained.out))
    assert torch.equal(before, after)
