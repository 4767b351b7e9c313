"""Decides from a student's `certificate.json` whether it may share its teacher's space."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3index.encoder.layout import Layout

NAME = "certificate.json"
VERSION = 2


@dataclass(frozen=True, slots=True)
class Bars:
    """The minimum agreement between a student and its teacher on held-out texts.

    cosine: mean cosine between their dense vectors. token_overlap: mean share of the teacher's five heaviest
    tokens that are among the student's, if the teacher has lexical weights. mixed: nDCG@10 with one model's
    queries and the other's documents, in both directions, as a share of the teacher's own nDCG@10, on each
    test collection.
    """

    cosine: float = 0.9
    token_overlap: float = 0.7
    mixed: float = 0.95


BARS = Bars()


def space_id(layout: Layout, own: str) -> str:
    """The teacher's space if the directory's certificate passes and is for exactly these weights and
    settings, otherwise `own`, the model's `layout.space_digest`."""
    certificate = read(layout.root)
    if certificate is None or certificate["student"]["space_id"] != own or shortfalls(certificate):
        return own
    return str(certificate["teacher"]["space_id"])


def read(directory: Path) -> Mapping[str, Any] | None:
    """The certificate of a model directory, or None if it is missing or unreadable."""
    try:
        certificate = json.loads((directory / NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(certificate, dict) and certificate.get("version") == VERSION
    return certificate if known else None


def shortfalls(certificate: Mapping[str, Any], bars: Bars = BARS) -> list[str]:
    """The reasons why the student may not share its teacher's space; empty if it may."""
    teacher, student = certificate["teacher"], certificate["student"]
    figures = certificate["agreement"]["student"]
    reasons = []
    if student["dim"] != teacher["dim"]:
        reasons.append(f"its vectors have {student['dim']} dimensions, the teacher's have {teacher['dim']}")
    elif figures["mean_cosine"] < bars.cosine:
        reasons.append(f"mean cosine {figures['mean_cosine']:.3f} is below {bars.cosine}")
    if "lexical" in teacher["heads"]:
        overlap = figures["token_overlap"]
        if "lexical" not in student["heads"]:
            reasons.append("it has no lexical head but the teacher has one")
        elif overlap is None or overlap < bars.token_overlap:
            reasons.append(f"token overlap {overlap or 0:.3f} is below {bars.token_overlap}")
    elif "lexical" in student["heads"]:
        reasons.append("it has a lexical head but the teacher has none")
    if student["dim"] == teacher["dim"]:
        for measured in certificate["retrieval"]:
            modes = measured["dense"]
            best = modes["teacher"]["ndcg_10"]
            mixed = {way: modes[way]["ndcg_10"] for way in ("student_queries", "teacher_queries")}
            reasons += [
                f"nDCG@10 {value:.3f} on {measured['collection']} with {way.replace('_', ' ')} is below "
                f"{bars.mixed} of the teacher's {best:.3f}"
                for way, value in mixed.items()
                if value < bars.mixed * best
            ]
    return reasons
