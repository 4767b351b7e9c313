"""The options of distillation and drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from m3index.corpus.options import Input
from m3index.distill.layers import LayerChoice
from m3index.encoder.options import DEFAULT_ENCODER, RemoteCode
from m3index.options import (
    FileName,
    Flag,
    Group,
    Number,
    OneOf,
    OptionError,
    Text,
    Texts,
    Whole,
    group,
    option,
)

Head: TypeAlias = Literal["dense", "lexical", "colbert"]
HEADS: tuple[Head, ...] = ("dense", "lexical", "colbert")


SETTINGS = ("matryoshka", "standardised")
"""The fields of an objective that are not weights."""


@dataclass(frozen=True, slots=True)
class Objective:
    """The weight of each term of the loss; zero omits the term.

    matryoshka: further widths at which the dense terms are computed, in equal shares with the full width.
    standardised: before their cosines, the components of dense vectors and states are centred and scaled by
    the teacher's mean and deviation over the batch.
    """

    cosine: float = 0.0
    mse: float = 0.0
    similarity: float = 0.0
    lexical: float = 0.0
    multi_vector: float = 0.0
    hidden: float = 0.0
    layers: float = 0.0
    matryoshka: tuple[int, ...] = ()
    standardised: bool = False

    def weights(self) -> dict[str, float]:
        return {name: value for name, value in asdict(self).items() if name not in SETTINGS}

    @property
    def per_token(self) -> bool:
        """Whether any term compares individual tokens, which requires the teacher's tokenizer."""
        return bool(self.lexical or self.multi_vector or self.hidden or self.layers)

    @property
    def same_width(self) -> bool:
        """Whether any term requires dense vectors as wide as the teacher's."""
        return bool(self.cosine or self.mse)

    def without(self, *terms: str) -> Objective:
        return replace(self, **dict.fromkeys(terms, 0.0))  # type: ignore[arg-type]


RECIPES: Mapping[str, Objective] = MappingProxyType(
    {
        # All heads. The weights follow M3's own self-distillation: the lexical weight is low because its
        # scale is unbounded.
        "m3": Objective(cosine=1.0, similarity=1.0, lexical=0.1, multi_vector=0.5),
        # altaidevorg/bge-m3-distill-8l: only the MSE of the dense vectors.
        "mse": Objective(mse=1.0),
        # avditvs/multilingual-e5-small-distill-base: squared differences of pairwise cosines, Matryoshka.
        "pair-cosine": Objective(similarity=1.0, matryoshka=(64, 128, 256)),
    }
)


def _weight(of: str) -> Any:
    return option(Number(0.0), f"Weight of {of}.", default=None, shown="the recipe's")


@group
class Student(RemoteCode):
    """The student model and its teacher."""

    panel = "Student"

    out: str = option(FileName("DIR"), "Output directory of the student.", flags=("--out", "-o"))
    teacher: str | None = option(
        Text("MODEL"),
        "Preset, hub id or directory of the teacher.",
        default=None,
        shown=f"{DEFAULT_ENCODER}; none with --heads-only, where the lexical head learns BM25-like weights",
    )
    student: str | None = option(
        Text("MODEL"),
        "Preset, hub id or directory of a model to train instead of layers of the teacher.",
        default=None,
        shown="none",
    )
    layers: str | None = option(
        Text("N|LIST|auto"),
        "Layers of the teacher to keep: a number, a list such as 0,3,7, or auto or auto:8 for the set that "
        "agrees best with the teacher.",
        default=None,
        shown="a third",
    )
    heads: str | None = option(
        Text("LIST"),
        "Heads to train, from dense,lexical,colbert.",
        default=None,
        shown="all heads of the teacher",
    )
    heads_only: bool = option(
        Flag(), "Freeze the --student and train only heads on top of it.", default=False
    )
    train_embeddings: bool = option(Flag(), "Also train the token embeddings.", default=False)

    def check(self) -> None:
        if self.heads_only and self.student is None:
            raise OptionError("heads_only", "trains heads of a student. Name one.")
        self.layer_choice, self.head_names  # noqa: B018  (raise for an invalid text)
        super().check()

    @property
    def teacher_name(self) -> str | None:
        """The teacher; None if the lexical head learns BM25-like weights."""
        return self.teacher or (None if self.heads_only else DEFAULT_ENCODER)

    @property
    def layer_choice(self) -> LayerChoice:
        """The layers of the teacher to keep. Raises OptionError."""
        try:
            return LayerChoice() if self.layers is None else LayerChoice.parse(self.layers)
        except ValueError:
            problem = f"{self.layers}: use a number, a list such as 0,3,7, or auto."
            raise OptionError("layers", problem) from None

    @property
    def head_names(self) -> tuple[Head, ...] | None:
        """The heads to train; None for all heads of the teacher. Raises OptionError."""
        if self.heads is None:
            return None
        names = [part.strip() for part in self.heads.split(",")]
        if unknown := [name for name in names if name not in HEADS]:
            raise OptionError("heads", f"takes {', '.join(HEADS)}; there is no head {unknown[0]!r}.")
        return tuple(head for head in HEADS if head in names)


@group
class Loss(Group):
    """The weights of the losses."""

    panel = "Loss"

    recipe: str = option(
        OneOf(tuple(RECIPES), "NAME"), "Preset of loss weights: m3, mse or pair-cosine.", default="m3"
    )
    w_cosine: float | None = _weight("the loss 1 - cosine of the dense vectors")
    w_mse: float | None = _weight("the squared differences of the dense vectors")
    w_similarity: float | None = _weight("the squared differences of the pairwise cosines")
    w_lexical: float | None = _weight("the squared differences of the token weights")
    w_colbert: float | None = _weight("the loss 1 - cosine of the multi-vectors")
    w_hidden: float | None = _weight("the loss 1 - cosine of the last hidden states")
    w_layers: float | None = _weight(
        "the loss 1 - cosine of the states after each layer of the student and before the next of the teacher"
    )
    standardise: bool = option(
        Flag(),
        "Centre and scale each component of dense vectors and hidden states by the teacher's mean and "
        "deviation over the batch before their cosines, for models whose vectors all point one way.",
        default=False,
    )
    matryoshka: str | None = option(
        Text("LIST"),
        "Numbers of dimensions at which the dense losses also count, such as 64,128,256.",
        default=None,
        shown="the recipe's",
    )

    def check(self) -> None:
        self.objective  # noqa: B018  (raises for invalid widths)
        super().check()

    @property
    def objective(self) -> Objective:
        """The recipe, with the given weights and widths in place of its own. Raises OptionError."""
        widths = None
        if self.matryoshka is not None:
            try:
                widths = tuple(sorted({int(width) for width in self.matryoshka.split(",")}))
            except ValueError:
                problem = f"{self.matryoshka}: use a list of widths such as 64,128,256."
                raise OptionError("matryoshka", problem) from None
            if widths[0] < 1:
                raise OptionError("matryoshka", f"{self.matryoshka}: widths must be greater than 0.")
        given: dict[str, Any] = {
            "cosine": self.w_cosine,
            "mse": self.w_mse,
            "similarity": self.w_similarity,
            "lexical": self.w_lexical,
            "multi_vector": self.w_colbert,
            "hidden": self.w_hidden,
            "layers": self.w_layers,
            "matryoshka": widths,
            "standardised": self.standardise,
        }
        return replace(RECIPES[self.recipe], **{k: v for k, v in given.items() if v is not None})


@group
class Learning(Group):
    """The schedule of the training."""

    panel = "Learning"

    steps: int | None = option(Whole(1), "Number of optimiser steps.", default=None, shown="from --epochs")
    epochs: float = option(Number(0.0), "Number of passes over the corpus.", default=1.0)
    learning_rate: float = option(Number(), "Peak learning rate.", default=2e-4)
    warmup: float = option(Number(0.0, 1.0), "Share of the steps for warm-up, from 0 to 1.", default=0.06)
    weight_decay: float = option(Number(0.0), "Weight decay of the matrices.", default=0.01, flag=False)
    clip: float = option(Number(), "Maximum norm of the gradient.", default=1.0, flag=False)
    batch_tokens: int = option(Whole(1), "Number of tokens per forward pass.", default=8192)
    accumulate: int = option(Whole(1), "Number of forward passes per step.", default=1)
    optimizer: Literal["adamw", "muon"] = option(
        OneOf(("adamw", "muon"), "NAME"),
        "Optimiser: adamw, or muon for the matrices of the layers.",
        default="adamw",
    )
    train_precision: Literal["auto", "fp32", "bf16"] = option(
        OneOf(("auto", "fp32", "bf16"), "PRECISION"),
        "Precision of the training: auto, fp32 or bf16.",
        default="auto",
    )
    seed: int = option(Whole(0), "Random seed for the order of the batches.", default=0)
    save_every: int = option(Whole(1), "Number of steps between checkpoints.", default=500)
    resume: bool = option(Flag(), "Continue exactly from the last checkpoint.", default=False, file=False)
    work: str | None = option(
        FileName("DIR"),
        "Directory for prepared data and checkpoints.",
        default=None,
        shown="OUT.work, removed at the end",
    )
    log_dir: str | None = option(
        FileName("DIR"), "Directory for training.jsonl and training.png.", default=None, shown="none"
    )

    def check(self) -> None:
        for name in ("epochs", "learning_rate", "clip"):
            if getattr(self, name) <= 0:
                raise OptionError(name, "must be above 0.")
        super().check()


@group
class TrainingData(Group):
    """The training texts."""

    panel = "Data"

    corpus: Sequence[str] = option(Texts("FILE..."), "Corpora to train on, in any format that ingest reads.")
    tokens: int = option(
        Whole(8), "Maximum number of tokens per input; longer texts are split into windows.", default=512
    )
    long_share: float = option(
        Number(0.0, 1.0), "Share of the texts that are joined into long inputs, from 0 to 1.", default=0.1
    )
    replace_words: float = option(
        Number(0.0, 1.0),
        "Average share of words replaced by other words of the vocabulary, from 0 to 1.",
        default=0.0,
    )
    plain_share: float = option(
        Number(0.0, 1.0),
        "Share of the texts that keep their words with --replace-words and come last, from 0 to 1.",
        default=0.2,
    )
    held_out: float = option(
        Number(), "Share of the texts held out from training, up to 1,000 texts.", default=0.02
    )
    held_out_texts: int = option(
        Whole(0), "Maximum number of texts held out from training.", default=1000, flag=False
    )
    exclude_corpus: Sequence[str] = option(
        Texts("FILE"),
        "Corpus whose texts are excluded from training; repeatable.",
        default=(),
        shown="none",
    )
    cache: str | None = option(
        FileName("DIR"),
        "Directory that caches the outputs of the teacher across runs.",
        default=None,
        shown="none",
    )

    def check(self) -> None:
        if not 0 < self.held_out < 1:
            raise OptionError("held_out", "must be between 0 and 1.")
        super().check()


@group
class Judging(Group):
    """The data on which the certificate is measured."""

    panel = "Certificate"

    eval_pairs: Sequence[str] = option(
        Texts("TSV"),
        "TSV file of text pairs, with an optional score in the first column; repeatable.",
        default=(),
        shown="none",
    )
    eval_retrieval: Sequence[str] = option(
        Texts("DIR"),
        "Directory of a test collection in the BEIR layout; repeatable.",
        default=(),
        shown="none",
    )


@group
class DistillOptions(Judging, Input, TrainingData, Learning, Loss, Student):
    """A distillation."""

    def check(self) -> None:
        super().check()
        if self.cache is not None and self.teacher_name is None:
            raise OptionError("cache", "keeps a teacher's outputs, but there is no teacher. Leave it out.")
        if self.objective.layers and self.student is not None:
            raise OptionError(
                "w_layers", "compares layers that the student takes from its teacher. Leave out student."
            )
        if self.objective.layers and self.layer_choice.count == 1:
            raise OptionError("w_layers", "compares layers before the last. Keep at least two layers.")

    @property
    def folder(self) -> Path:
        """The folder of the prepared data and the checkpoint."""
        out = Path(self.out)
        return out.with_name(out.name + ".work") if self.work is None else Path(self.work)


@group
class DriftOptions(RemoteCode):
    """A comparison of stored vectors with a model, on a sample of passages."""

    panel = "Drift"

    teacher: str | None = option(
        Text("MODEL"),
        "Preset, hub id or directory of the model to compare with.",
        default=None,
        shown="the teacher named in the student's certificate, else teacher",
    )
    sample: int = option(Whole(1), "Number of passages to encode again.", default=200)
    min_cosine: float | None = option(
        Number(-1.0, 1.0),
        "Minimum mean cosine of the dense vectors.",
        default=None,
        shown="0.02 below that of the certificate, else 0.9",
    )
    seed: int = option(Whole(0), "Random seed of the sample.", default=0)
