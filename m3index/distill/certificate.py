"""Compares a student with its teacher and with its untrained self: `certificate.json`."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import m3index
from m3index.corpus.lines import text_lines
from m3index.distill import agreement, retrieval
from m3index.distill.agreement import Pair
from m3index.distill.data import HeldOut
from m3index.distill.network import same_tokens
from m3index.distill.retrieval import TestCollection
from m3index.encoder import certificate as certificates
from m3index.encoder import layout as layouts
from m3index.encoder.layout import Layout
from m3index.encoder.model import ModelEncoder
from m3index.errors import UsageError
from m3index.wording import short_names

_SPEED_TEXTS = 256


@dataclass(frozen=True, slots=True)
class Trial:
    """The three models to compare, and the data to compare them on. tokens: the maximum input length."""

    teacher: ModelEncoder
    untrained: ModelEncoder
    student: ModelEncoder
    held_out: Sequence[HeldOut]
    tokens: int
    pairs: Mapping[str, Sequence[Pair]] = field(default_factory=dict)
    collections: Sequence[TestCollection] = ()


def read_pair_sets(paths: Sequence[str]) -> dict[str, list[Pair]]:
    """The pairs of several files under short names (`wording.short_names`)."""
    return {name: read_pairs(path) for name, path in short_names(paths).items()}


def read_pairs(path: Path) -> list[Pair]:
    """Reads tab-separated lines of score, text, text or of text, text. A header has a non-numeric score."""
    pairs = []
    for number, line in text_lines(path):
        columns = line.split("\t")
        if len(columns) not in (2, 3):
            raise UsageError(f"{path}:{number} has {len(columns)} columns. A line is [score], text, text.")
        gold = None
        if len(columns) == 3:
            try:
                gold = float(columns[0])
            except ValueError:
                if number == 1:
                    continue
                raise UsageError(f"{path}:{number}: the score {columns[0]!r} is not a number.") from None
        pairs.append(Pair(columns[-2], columns[-1], gold))
    if len(pairs) < 2:
        raise UsageError(f"{path} has fewer than two pairs. Add more.")
    return pairs


def measure(trial: Trial) -> dict[str, Any]:
    """Measures the sections `agreement`, `pairs`, `retrieval` and `speed`."""
    students = {"untrained": trial.untrained, "student": trial.student}
    encoders = {"teacher": trial.teacher, **students}
    alike = same_tokens(trial.teacher.tokenizer, trial.student.tokenizer)
    probes = agreement.probes(trial.held_out, [trial.teacher, trial.student], trial.tokens)
    teacher = agreement.encode(trial.teacher, probes.texts)
    sections: dict[str, Any] = {"agreement": {"texts": len(probes.texts)}}
    for name, encoder in students.items():
        own = agreement.encode(encoder, probes.texts)
        sections["agreement"][name] = agreement.figures(own, teacher, probes.langs, same_tokens=alike)
    sections["pairs"] = []
    for name, pairs in trial.pairs.items():
        cosines = {model: agreement.pair_cosines(encoder, pairs) for model, encoder in encoders.items()}
        sections["pairs"].append({"name": name} | agreement.pair_figures(cosines, pairs))
    sections["retrieval"] = [
        retrieval.evaluate(collection, encoders, trial.tokens, same_tokens=alike)
        for collection in trial.collections
    ]
    pair = {"teacher": trial.teacher, "student": trial.student}
    rates = agreement.speed(pair, probes.texts[:_SPEED_TEXTS])
    sections["speed"] = {
        "teacher_texts_per_second": rates["teacher"],
        "student_texts_per_second": rates["student"],
        "ratio": rates["student"] / rates["teacher"],
        "hardware": hardware(),
    }
    return sections


def describe(encoder: ModelEncoder, layout: Layout, name: str) -> dict[str, Any]:
    """Describes a model for the certificate. `space_id` is its own even if it shares another space."""
    info = encoder.info
    heads = ["dense", *["lexical"] * info.lexical, *["colbert"] * info.multi_vector]
    return {
        "name": name,
        "space_id": layouts.space_digest(layout),
        "dim": info.dim,
        "heads": heads,
        "layers": int(layout.config["num_hidden_layers"]),
        "parameters": info.parameters,
    }


def certificate(
    teacher: Mapping[str, Any],
    student: Mapping[str, Any],
    training: Mapping[str, Any],
    data: Mapping[str, Any],
    measured: Mapping[str, Any],
) -> dict[str, Any]:
    """A complete certificate, which follows `schemas/certificate.schema.json`."""
    whole = {
        "version": certificates.VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "m3index": m3index.__version__,
        "teacher": dict(teacher),
        "student": dict(student),
        "training": dict(training),
        "data": dict(data),
        **measured,
    }
    shortfalls = certificates.shortfalls(whole)
    return {**whole, "shares_space": not shortfalls, "shortfalls": shortfalls}


def write(certificate: Mapping[str, Any], folder: Path) -> None:
    text = json.dumps(certificate, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / certificates.NAME).write_text(text + "\n", "utf-8")


def hardware() -> str:
    """The hardware that the figures were measured on: the GPU, or the CPU and its threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{processor()}, {torch.get_num_threads()} threads"


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
