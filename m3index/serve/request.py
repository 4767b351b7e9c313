"""The requests of clients: the options of a search as JSON, in a URL, or as arguments of a tool."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, create_model

from m3index.errors import UsageError
from m3index.options import (
    Custom,
    Flag,
    Group,
    Option,
    OptionError,
    Text,
    Whole,
    check_names,
    group,
    option,
    options_of,
)
from m3index.search.options import SearchOptions, Sought
from m3index.searchable import ReadOptions
from m3index.types import DEFAULT_SOURCE, MAX_PASSAGES

GroupT = TypeVar("GroupT", bound=Group)

POOL_LIMIT = 500
MAX_TOOL_HITS = 50
MAX_TOOL_PASSAGES = 20


def _query(value: object) -> str:
    if isinstance(value, str):
        return value  # the search rejects an empty one
    raise ValueError


@group
class SearchRequest(SearchOptions):
    """A search with exactly one of `query` and `similar`."""

    panel = "Search"

    query: str | None = option(
        Custom(_query, "a text"), "A question or keywords, in any language.", default=None
    )
    similar: str | None = option(
        Text("DOC_ID"), "Id of a document to find similar documents for, instead of a query.", default=None
    )

    def check(self) -> None:
        if (self.query is None) == (self.similar is None):
            raise UsageError("Give exactly one of query and similar.")
        super().check()


@group
class AnswerRequest(SearchRequest):
    """A search over HTTP, and the contents of its answer."""

    panel = "Answer"

    legs: bool = option(Flag(), "Return the rankings of the legs.", default=True)
    snippets: bool = option(Flag(), "Return the matching part of each hit's text.", default=False)
    pool: int = option(
        Whole(0, POOL_LIMIT),
        "Number of ids of each leg to return with title and snippet, so that a client can fuse the legs with "
        "other weights without a new search.",
        default=0,
    )


@group
class ToolRequest(SearchRequest):
    """A search by an assistant."""

    panel = "Tool"

    k: int = option(Whole(1, MAX_TOOL_HITS), "Maximum number of hits.", default=10)


@group
class WhyRequest(Sought):
    """A query and the document that is missing from its hits."""

    panel = "Query"

    query: str = option(Custom(_query, "a text"), "The question or keywords that were searched for.")


@group
class DocumentRequest(ReadOptions):
    """A document to read over HTTP."""

    panel = "Document"

    doc_id: str = option(Text("DOC_ID"), "Id of the document, as in a hit.")
    source: str = option(Text("NAME"), "Source of the document, as in a hit.", default=DEFAULT_SOURCE)
    count: int = option(Whole(1, MAX_PASSAGES), "Number of passages to read.", default=MAX_PASSAGES)


@group
class ToolDocument(DocumentRequest):
    """A document to read by an assistant."""

    panel = "Tool"

    count: int = option(Whole(1, MAX_TOOL_PASSAGES), "Number of passages to read.", default=MAX_TOOL_PASSAGES)


@group
class ToolStatus(Group):
    """The status for an assistant, which has no options."""


class _Parameters(BaseModel):
    """Lets unknown names pass: the group rejects them, in its own words (`_values`)."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"additionalProperties": False})


def _fields(annotate: Callable[[Option], Any], request: type[Group]) -> dict[str, Any]:
    return {declared.name: (annotate(declared), None) for declared in options_of(request)}


def as_json(declared: Option) -> Any:
    """The type of a value in a request. The schema only describes it; the group checks it."""
    schema = {**declared.kind.schema, "description": declared.help}
    has_default = not declared.is_required and declared.default is not None
    more = {"default": declared.default} if has_default else {}  # instead of null
    return Annotated[Any, WithJsonSchema(schema), Field(json_schema_extra=more)]


def _in_url(declared: Option) -> Any:
    plain = list[str] | None if declared.kind.is_repeatable else str | None
    return Annotated[plain, Field(description=declared.help)]


Body: type[BaseModel] = create_model("Body", __base__=_Parameters, **_fields(as_json, AnswerRequest))
"""POST /search."""

WhyBody: type[BaseModel] = create_model("WhyBody", __base__=_Parameters, **_fields(as_json, WhyRequest))
"""POST /why."""

Parameters: type[BaseModel] = create_model(
    "Parameters", __base__=_Parameters, **_fields(_in_url, AnswerRequest)
)
"""GET /search?query=..."""

DocumentParameters: type[BaseModel] = create_model(
    "DocumentParameters", __base__=_Parameters, **_fields(_in_url, DocumentRequest)
)
"""GET /document?doc_id=..."""


def from_body(body: BaseModel) -> AnswerRequest:
    """Reads a body; null stands for an option that is left out. Raises UsageError."""
    return AnswerRequest(**_values(dict(body), AnswerRequest))


def why_from_body(body: BaseModel) -> WhyRequest:
    """Reads the body of a question for a document. Raises UsageError."""
    return WhyRequest(**_values(dict(body), WhyRequest))


def from_url(parameters: BaseModel) -> AnswerRequest:
    """Reads a search from a URL. Raises UsageError."""
    return AnswerRequest.from_texts(_values(dict(parameters), AnswerRequest))


def document_from_url(parameters: BaseModel) -> DocumentRequest:
    """Reads a document request from a URL. Raises UsageError."""
    return DocumentRequest.from_texts(_values(dict(parameters), DocumentRequest))


def as_tool(
    call: Callable[[GroupT], dict[str, Any]], request: type[GroupT], *, without: Collection[str] = ()
) -> Callable[..., dict[str, Any]]:
    """Turns a function of a request into one that takes its options as arguments. without: hidden options."""
    declared = [d for d in options_of(request) if d.name not in without]

    def tool(**arguments: Any) -> dict[str, Any]:
        return call(request(**_values(arguments, request, without)))

    tool.__name__, tool.__doc__ = call.__name__, call.__doc__
    tool.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                d.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if d.is_required else None,
                annotation=as_json(d),
            )
            for d in declared
        ],
        return_annotation=dict[str, Any],
    )
    return tool


def _values(
    arguments: Mapping[str, Any], request: type[Group], without: Collection[str] = ()
) -> dict[str, Any]:
    """The arguments that are not null. Raises UsageError for an unknown or missing one: a misspelt filter
    must not become a search without a filter."""
    options = {declared.name: declared for declared in options_of(request) if declared.name not in without}
    check_names(arguments, options.keys())
    values = {name: value for name, value in arguments.items() if value is not None}
    for name, declared in options.items():
        if declared.is_required and name not in values:
            raise OptionError(name, "is required.")
    return values
