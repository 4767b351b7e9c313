"""What to distil, and why it cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from m3index.corpus.mapping import FieldMapping
from m3index.distill.data import DataSettings
from m3index.distill.layers import LayerChoice
from m3index.distill.loop import Training
from m3index.distill.losses import RECIPES, Objective
from m3index.encoder import layout as layouts
from m3index.encoder.layout import Layout
from m3index.errors import MismatchError, MissingHeadError, UsageError

Head: TypeAlias = Literal["dense", "lexical", "colbert"]
HEADS: tuple[Head, ...] = ("dense", "lexical", "colbert")


@dataclass(frozen=True, slots=True)
class Request:
    """What to distil.

    teacher: preset, hub id or directory; None only with `heads_only`: the lexical head then learns
    BM25-like weights. student: a model to train, None for the teacher's own layers. heads: None for all
    that the teacher has. cache: a folder for the teacher's outputs (dense and lexical). work: where the
    prepared data and the checkpoint lie; by default beside `out`, and removed at the end. exclude: corpora
    none of whose texts may be trained on; the texts of eval_pairs and eval_retrieval never are.
    """

    out: Path
    corpus: Sequence[str]
    teacher: str | None = "teacher"
    student: str | None = None
    layers: LayerChoice = field(default_factory=LayerChoice)
    heads: tuple[Head, ...] | None = None
    objective: Objective = RECIPES["m3"]
    heads_only: bool = False
    embeddings: bool = False
    data: DataSettings = field(default_factory=DataSettings)
    training: Training = field(default_factory=Training)
    mapping: FieldMapping = field(default_factory=FieldMapping)
    exclude: Sequence[str] = ()
    eval_pairs: Path | None = None
    eval_retrieval: Path | None = None
    cache: Path | None = None
    work: Path | None = None
    log_dir: Path | None = None
    device: str = "auto"
    precision: str = "auto"
    trust_remote_code: bool = False
    resume: bool = False

    @property
    def folder(self) -> Path:
        return self.work or self.out.with_name(self.out.name + ".work")


def parse_heads(text: str) -> tuple[Head, ...] | None:
    """`dense,lexical` -> heads; nothing -> None. Raises UsageError."""
    if not text.strip():
        return None
    named = [part.strip() for part in text.split(",")]
    unknown = [name for name in named if name not in HEADS]
    if unknown:
        raise UsageError(f"--heads: there is no head {unknown[0]!r}; there are {', '.join(HEADS)}.")
    return tuple(head for head in HEADS if head in named)


def parse_objective(recipe: str, weights: Mapping[str, float | None], matryoshka: str) -> Objective:
    """A recipe, with those weights that are given in place of its own. Raises UsageError."""
    if recipe not in RECIPES:
        raise UsageError(f"There is no recipe {recipe!r}; there are {', '.join(RECIPES)}.")
    changes: dict[str, Any] = {name: weight for name, weight in weights.items() if weight is not None}
    if matryoshka:
        try:
            changes["matryoshka"] = tuple(sorted({int(width) for width in matryoshka.split(",")}))
        except ValueError:
            raise UsageError(f"--matryoshka is written 64,128,256; {matryoshka!r} is not.") from None
        if changes["matryoshka"][0] < 1:
            raise UsageError("--matryoshka: widths are greater than 0.")
    return replace(RECIPES[recipe], **changes)


def check(request: Request) -> None:
    if request.teacher is None and not (request.heads_only and request.student):
        raise UsageError("Name a --teacher; only --heads-only with a --student does without one.")
    if request.heads_only and request.student is None:
        raise UsageError("--heads-only trains heads of a --student; name one.")
    if request.student is not None and request.objective.layers:
        raise UsageError(
            "--w-layers compares the layers that the student has of its teacher: not a --student's."
        )
    if request.out.exists() and (not request.out.is_dir() or any(request.out.iterdir())):
        raise UsageError(f"{request.out} exists already; name another --out or remove it.")


def trained_objective(request: Request, teacher: Layout | None) -> Objective:
    """The terms of the heads that are trained. Raises MissingHeadError for one that the teacher lacks."""
    there: list[Head] = ["dense"]
    if teacher is None or teacher.lexical is not None:
        there.append("lexical")
    if teacher is not None and teacher.multi_vector is not None:
        there.append("colbert")
    heads = tuple(there) if request.heads is None else request.heads
    missing = [head for head in heads if head not in there]
    if missing:
        name = request.teacher or "BM25"
        raise MissingHeadError(f"{name} has no {missing[0]} head to learn from, and none is ever made up.")
    objective = request.objective
    if "lexical" not in heads:
        objective = objective.without("lexical")
    if "colbert" not in heads:
        objective = objective.without("multi_vector")
    if "dense" not in heads or request.heads_only:
        objective = objective.without("cosine", "mse", "similarity", "hidden", "layers")
    if not any(objective.weights().values()):
        raise UsageError("Nothing to train: no head that was asked for has a loss with a weight.")
    if request.cache is not None and (objective.multi_vector or objective.hidden or objective.layers):
        raise UsageError("A cache holds dense vectors and token weights: use --heads dense,lexical with it.")
    if request.cache is not None and teacher is None:
        raise UsageError("--cache keeps a teacher's outputs, and there is no teacher.")
    return objective


def check_pair(objective: Objective, teacher: Layout | None, student: Layout, same: bool) -> None:
    if teacher is None:
        return
    if objective.per_token and not same:
        raise MismatchError(
            "The student's tokenizer is not the teacher's, so their tokens cannot be compared: "
            "use --heads dense, or --recipe mse or pair-cosine."
        )
    widths = [layouts.hidden_size(layout.config) for layout in (teacher, student)]
    if objective.hidden and widths[0] != widths[1]:
        raise MismatchError(f"Hidden states of {widths[1]} and {widths[0]} dimensions cannot be compared.")
