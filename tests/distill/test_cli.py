"""m3index models distill and m3index models drift."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import models
import pytest
from terminal import REPOSITORY, Command, process_environment, without_stamp, write_jsonl

from m3index import schema


@pytest.fixture
def student(m3index: Command, teacher: Path, small: Path, tmp_path: Path) -> Path:
    done = m3index(
        "models", "distill", "--teacher", teacher, "--out", "student", "--corpus", small, "--layers", "0,2,5",
        "--steps", 60, "--learning-rate", 3e-3, "--batch-tokens", 512, "--tokens", 64, "--held-out", 0.1,
        "--train-precision", "fp32", "--precision", "fp32", "--device", "cpu", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    for line in done.lines:
        jsonschema.validate(line, schema.load("event.schema.json"))
    [certificate] = [without_stamp(line) for line in done.lines if line["type"] == "certificate"]
    del certificate["type"]
    assert certificate == json.loads((tmp_path / "student/certificate.json").read_text("utf-8"))
    assert done.summary["steps"] == 60
    counted = [line for line in done.lines if line.get("unit") == "steps"]
    assert all(line["total"] == 60 for line in counted)
    return tmp_path / "student"


def test_a_student_shares_its_teachers_collection_and_drift_watches_it(
    m3index: Command, student: Path, teacher: Path, tmp_path: Path
) -> None:
    corpus = write_jsonl(
        tmp_path / "c.jsonl", [{"id": str(i), "text": t} for i, t in enumerate(models.LINES)]
    )
    fp32 = ("--precision", "fp32", "--device", "cpu")
    assert m3index("ingest", corpus, "--uri", "t.db", "--encoder", student, *fp32).code == 0
    found = m3index("search", "lazy dog", "--uri", "t.db", "--encoder", teacher, "--json", *fp32)
    assert found.code == 0, found.err
    assert found.hits

    done = m3index("models", "drift", "--uri", "t.db", "--sample", 8, "--min-cosine", 0.5, "--json", *fp32)
    [agreement] = [line for line in done.lines if line["type"] == "agreement"]
    assert agreement["passages"] == 8
    assert agreement["teacher"] == str(teacher)
    refused = m3index("models", "drift", "--uri", "t.db", "--min-cosine", 0.99999, *fp32)
    assert refused.code == 16
    assert "mean cosine" in refused.err.lower()


def test_an_uncertified_model_is_refused(m3index: Command, teacher: Path, tmp_path: Path) -> None:
    corpus = write_jsonl(tmp_path / "c.jsonl", [{"id": "1", "text": "the lazy dog"}])
    fp32 = ("--precision", "fp32", "--device", "cpu")
    assert m3index("ingest", corpus, "--uri", "t.db", "--encoder", teacher, *fp32).code == 0
    other = models.write_m3(tmp_path / "other", seed=4)
    assert m3index("search", "dog", "--uri", "t.db", "--encoder", other, *fp32).code == 13


def test_usage_errors(m3index: Command, teacher: Path, small: Path, tmp_path: Path) -> None:
    def said(*arguments: object) -> str:
        done = m3index("models", "distill", "--teacher", teacher, "--out", "s", "--corpus", small, *arguments)
        assert done.code == 2
        return done.err

    assert "no head 'sparse'" in said("--heads", "sparse")
    assert "--recipe takes m3, mse or pair-cosine, not 'best'" in said("--recipe", "best")
    assert "--layers many: use a number" in said("--layers", "many")
    assert "--matryoshka big: use a list of widths" in said("--matryoshka", "big")
    assert "--heads-only trains heads of a student" in said("--heads-only")
    assert "--learning-rate must be above 0" in said("--learning-rate", "0")
    assert "--held-out must be between 0 and 1" in said("--held-out", "1")
    assert "Use --heads dense,lexical" in said("--cache", "c")
    plain = models.write_m3(tmp_path / "plain", lexical=False)
    done = m3index(
        "models", "distill", "--teacher", plain, "--out", "s", "--corpus", small, "--heads", "lexical"
    )
    assert done.code == 13
    assert "no lexical head" in done.err


def test_the_curve_is_told_to_people(m3index: Command, teacher: Path, small: Path) -> None:
    done = m3index(
        "models", "distill", "--teacher", teacher, "--out", "s", "--corpus", small, "--layers", 2,
        "--steps", 3, "--device", "cpu", "--tokens", 64, "--held-out", 0.1,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "step 3 of 3" in done.err
    assert "mean cosine with the teacher" in done.err
    assert done.out == ""


def test_ctrl_c_keeps_what_was_trained(teacher: Path, small: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "m3index", "models", "distill", "--teacher", teacher, "--out", "s", "--corpus",
        small, "--layers", "2", "--steps", "1000000", "--device", "cpu", "--tokens", "64",
        "--held-out", "0.1", "--json",
    ]  # fmt: skip
    environment = process_environment(PYTHONPATH=str(REPOSITORY))
    options = {"cwd": tmp_path, "env": environment, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **options) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if '"steps"' in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read().splitlines()
    assert process.returncode == 130
    assert "Use --resume to continue" in rest[-2]
    assert (tmp_path / "s.work/checkpoint.pt").is_file()
    assert not (tmp_path / "s").exists()
