"""Declares each option once: as a field of a frozen dataclass, with its type, default and help text.

Such a dataclass is a *group* (connection, model, corpus, search ...); groups are combined by inheritance.
Every interface is derived from the same declaration:

- the flags, environment variables and m3index.toml names of the command line (`cli/command.py`),
- the keywords of the Python API (`keywords`, `only_keywords`),
- the HTTP body, the MCP tools and the integrations (`serve/`, `integrations/`),
- `docs/reference.md`.

A group checks its values when it is created, so an invalid value raises an error before anything is loaded or
sent. None stands for an optional one that is left out. If a group has several bases, the options of the last
base come first.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import wraps
from types import MappingProxyType
from typing import Any, ClassVar, Concatenate, ParamSpec, Self, TypeVar, dataclass_transform

from m3index.errors import UsageError

C = TypeVar("C")
G = TypeVar("G")
GroupT = TypeVar("GroupT", bound="Group")
A = TypeVar("A")
R = TypeVar("R")
S = TypeVar("S")
P = ParamSpec("P")

Schema = Mapping[str, Any]
"""A JSON Schema."""


class OptionError(UsageError):
    """An option has an invalid value."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option} {problem}")
        self.option, self.problem = option, problem


# ------------------------------------------------------------------- kinds


class Kind(ABC):
    """The type of an option's values.

    metavar: the name of a value in help texts. schema: the JSON Schema of a value in a request. is_flag:
    takes no value on the command line. is_repeatable: is given once per value on the command line.
    """

    metavar: str = "TEXT"
    schema: Schema = MappingProxyType({"type": "string"})
    is_flag: bool = False
    is_repeatable: bool = False

    @property
    @abstractmethod
    def takes(self) -> str:
        """A phrase for the valid values, such as `a whole number`."""

    @abstractmethod
    def check(self, value: object) -> Any:
        """Checks a value and returns it in its final form. Raises ValueError, OptionError or UsageError."""

    def parse(self, text: str) -> Any:
        """Reads a value from the command line, a variable or a URL. Raises the same errors as `check`."""
        return self.check(text)


class Flag(Kind):
    """True or False."""

    metavar, schema, is_flag, takes = "", {"type": "boolean"}, True, "true or false"

    def check(self, value: object) -> bool:
        if isinstance(value, bool):
            return value
        raise ValueError

    def parse(self, text: str) -> bool:
        try:
            return {"true": True, "1": True, "false": False, "0": False}[text.strip().lower()]
        except KeyError:
            raise ValueError from None


class Text(Kind):
    """A non-empty string. most: its maximum size in UTF-8 bytes; None for no limit."""

    def __init__(self, metavar: str = "TEXT", *, most: int | None = None) -> None:
        self.metavar = metavar
        self._most = most

    @property
    def takes(self) -> str:
        return "a non-empty text" + ("" if self._most is None else f" of at most {self._most:,} bytes")

    def check(self, value: object) -> str:
        if not isinstance(value, str) or not value:
            raise ValueError
        if self._most is not None and len(value.encode("utf-8", "surrogatepass")) > self._most:
            raise ValueError
        return value


class FileName(Kind):
    """A path."""

    takes = "a path"

    def __init__(self, metavar: str = "FILE", takes: str = "a path") -> None:
        self.metavar, self.takes = metavar, takes

    def check(self, value: object) -> str:
        if isinstance(value, str | os.PathLike) and (path := os.fspath(value)) and isinstance(path, str):
            return path
        raise ValueError


class Texts(Kind):
    """A list of non-empty strings."""

    schema, is_repeatable = {"type": "array", "items": {"type": "string"}}, True
    takes = "a list of texts"

    def __init__(self, metavar: str = "TEXT") -> None:
        self.metavar = metavar

    def check(self, value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, Sequence) and all(isinstance(item, str) and item for item in value):
            return tuple(value)
        raise ValueError


class OneOf(Kind):
    """One of several words."""

    def __init__(self, words: Sequence[str], metavar: str = "") -> None:
        self.words, self.metavar = tuple(words), metavar or "WORD"
        self.schema = {"type": "string", "enum": list(words)}

    @property
    def takes(self) -> str:
        return f"{', '.join(self.words[:-1])} or {self.words[-1]}"

    def check(self, value: object) -> str:
        if isinstance(value, str) and value in self.words:
            return value
        raise ValueError


class Whole(Kind):
    """A whole number from `least` to `most`, inclusive."""

    def __init__(self, least: int | None = None, most: int | None = None, metavar: str = "N") -> None:
        self.least, self.most, self.metavar = least, most, metavar
        self.schema = {"type": "integer", **_bounds(least, most)}

    @property
    def takes(self) -> str:
        return "a whole number" + _range(self.least, self.most)

    def check(self, value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and _within(value, self.least, self.most):
            return value
        raise ValueError

    def parse(self, text: str) -> int:
        return self.check(int(text) if text.strip().isascii() else text)


class Number(Kind):
    """A finite number from `least` to `most`, inclusive."""

    def __init__(self, least: float | None = None, most: float | None = None, metavar: str = "X") -> None:
        self.least, self.most, self.metavar = least, most, metavar
        self.schema = {"type": "number", **_bounds(least, most)}

    @property
    def takes(self) -> str:
        return "a number" + _range(self.least, self.most)

    def check(self, value: object) -> float:
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and _within(value, self.least, self.most)
        ):
            return float(value)
        raise ValueError

    def parse(self, text: str) -> float:
        return self.check(float(text))


class Custom(Kind):
    """A value that a function reads, from a text or from other types.

    read: raises ValueError for a message that says what the option takes, or UsageError with a complete
    message.
    """

    def __init__(
        self,
        read: Callable[[Any], Any],
        takes: str,
        metavar: str = "TEXT",
        schema: Schema | None = None,
        *,
        is_repeatable: bool = False,
    ) -> None:
        self._read, self._takes = read, takes
        self.metavar, self.is_repeatable = metavar, is_repeatable
        self.schema = {"type": "string"} if schema is None else schema

    @property
    def takes(self) -> str:
        return self._takes

    def check(self, value: object) -> Any:
        return self._read(value)


class NameOr(Custom):
    """A name that is not empty, or an object with this method."""

    def __init__(self, method: str, takes: str, metavar: str) -> None:
        def read(value: object) -> object:
            if (isinstance(value, str) and value) or hasattr(value, method):
                return value
            raise ValueError

        super().__init__(read, takes, metavar)


@dataclasses.dataclass(frozen=True, slots=True)
class CountOrPercent:
    """A limit: a count, or a percentage. The percentage counts if there is no count."""

    count: int | None = None
    percent: float = 100.0

    @classmethod
    def parse(cls, value: object) -> Self:
        """Reads `200` or `25%`, at most 100%. Raises ValueError."""
        if isinstance(value, cls):
            return value
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return cls(count=value)
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(%?)\s*", value) if isinstance(value, str) else None
        if match and match[2] and float(match[1]) <= 100:
            return cls(percent=float(match[1]))
        if match and not match[2] and "." not in match[1]:
            return cls(count=int(match[1]))
        raise ValueError

    @property
    def takes_all(self) -> bool:
        """Whether it is no limit."""
        return self.count is None and self.percent == 100


def _within(value: float, least: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


def _range(least: float | None, most: float | None) -> str:
    match least, most:
        case None, None:
            return ""
        case _, None:
            return f" from {_short(least)} up"
        case None, _:
            return f" up to {_short(most)}"
    return f" from {_short(least)} to {_short(most)}"


def _short(bound: float | None) -> str:
    """Formats a bound: `16,384`, `0.1`, or `0` for 0.0."""
    return f"{bound:,}".removesuffix(".0")


def _bounds(least: float | None, most: float | None) -> dict[str, float]:
    bounds = {"minimum": least, "maximum": most}
    return {name: bound for name, bound in bounds.items() if bound is not None}


# ----------------------------------------------------------------- options


@dataclasses.dataclass(slots=True)
class Option:
    """One option, created by `option`; `group` sets `name` and `group`.

    help: one sentence. shown: describes a derived default. flag, variable, file: whether the option can be
    set on the command line, by `M3INDEX_<NAME>` and in m3index.toml. secret: never shown. harmless: whether a
    file that nobody has trusted may set it, because it does not change what a run connects to, reads, writes,
    removes or loads.
    """

    kind: Kind
    help: str
    default: Any
    flags: tuple[str, ...]
    shown: str
    flag: bool
    variable: bool
    file: bool
    secret: bool
    harmless: bool
    name: str = ""
    group: type[Group] | None = None

    @property
    def panel(self) -> str:
        """The heading of the option in help texts."""
        return self.group.panel if self.group else ""

    @property
    def is_required(self) -> bool:
        return self.default is dataclasses.MISSING

    @property
    def envvar(self) -> str | None:
        return f"M3INDEX_{self.name.upper()}" if self.variable else None

    @property
    def default_text(self) -> str:
        """The default as text; empty if there is nothing to show."""
        if self.shown or self.is_required or self.default is None or self.kind.is_flag:
            return self.shown
        if isinstance(self.default, tuple):
            return ", ".join(map(str, self.default))
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    def check(self, value: object) -> Any:
        """Checks a value and returns it in its final form. Raises OptionError, UsageError."""
        return self._read(self.kind.check, value)

    def parse(self, text: str) -> Any:
        """Reads a value from the command line or a variable. Raises OptionError, UsageError."""
        return self._read(self.kind.parse, text)

    def _read(self, read: Callable[[Any], Any], value: object) -> Any:
        if value is None and self.default is None:
            return None
        return _checked(self.name, self.kind, read, value)


def check(name: str, kind: Kind, value: object) -> Any:
    """Checks an argument that is not part of a group like an option. Raises OptionError, UsageError."""
    return _checked(name, kind, kind.check, value)


def _checked(name: str, kind: Kind, read: Callable[[Any], Any], value: object) -> Any:
    try:
        return read(value)
    except OptionError as error:
        raise OptionError(name, error.problem) from None
    except (ValueError, TypeError):
        raise OptionError(name, f"takes {kind.takes}, not {_shortened(value)}.") from None


MAX_SECRET = 65_536
"""The size in bytes up to which a file can be that of a token."""


def read_secret(value: str | None, file: str | None, variable: str, flag: str) -> str | None:
    """A secret that is given as a value, by a variable or in Python, or in a file; None if neither is given.

    Raises UsageError if both are given or if the file cannot be read.
    """
    if file is None:
        return value
    if value is not None:
        raise UsageError(f"The token is given twice: unset {variable} or leave out {flag}.")
    try:
        with open(file, "rb") as source:
            text = source.read(MAX_SECRET + 1).decode("utf-8").strip()
    except OSError as error:
        raise UsageError(f"{flag}: {file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        text = ""
    if not text or len(text) > MAX_SECRET or len(text.splitlines()) > 1:
        raise UsageError(f"{flag}: {file} must contain the token, and nothing else, on one line.")
    return text


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def option(
    kind: Kind,
    help: str,  # noqa: A002  (the usual name in command-line libraries)
    *,
    default: Any = dataclasses.MISSING,
    flags: Sequence[str] = (),
    shown: str = "",
    flag: bool = True,
    variable: bool = False,
    file: bool = True,
    secret: bool = False,
    harmless: bool = False,
    kw_only: bool = True,
) -> Any:
    """Declares a field of a group; see `Option`. Without a default, the option is required. kw_only: if
    False, the Python API also accepts it by position."""
    declared = Option(kind, help, default, tuple(flags), shown, flag, variable, file, secret, harmless)
    return dataclasses.field(default=default, kw_only=kw_only, metadata={"option": declared})


class Group:
    """The base class of groups. panel: the heading of its options in help texts."""

    panel: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for declared in options_of(type(self)):
            value = getattr(self, declared.name)
            if value is None and not declared.is_required:  # left out, as null in JSON
                object.__setattr__(self, declared.name, declared.default)
            elif value is not declared.default:
                object.__setattr__(self, declared.name, declared.check(value))
        self.check()

    def check(self) -> None:
        """Checks rules that involve several options. Raises UsageError."""

    @classmethod
    def from_texts(cls, texts: Mapping[str, str | Sequence[str] | bool]) -> Self:
        """Creates the group from texts, several for a repeatable option, and bools for flags.

        Ignores names that are not options of this group. Raises UsageError.
        """
        values: dict[str, Any] = {}
        for declared in options_of(cls):
            if declared.name in texts:
                text = texts[declared.name]
                read = declared.parse if isinstance(text, str) else declared.check
                values[declared.name] = read(text)  # type: ignore[arg-type]  # a text goes to parse
            elif declared.is_required:
                raise OptionError(declared.name, "is required.")
        return cls(**values)


def check_names(given: Iterable[str], names: Collection[str]) -> None:
    """Raises UsageError for a name that is not among `names`."""
    for name in given:
        if name not in names:
            known = f" The options are {', '.join(sorted(names))}." if names else ""
            raise UsageError(f"There is no option {name!r}.{known}")


def changed(options: GroupT, changes: Mapping[str, object]) -> GroupT:
    """Returns the group with some options changed. Raises UsageError for an unknown name."""
    check_names(changes, [declared.name for declared in options_of(type(options))])
    return dataclasses.replace(options, **changes)  # type: ignore[type-var]  # every group is a dataclass


def overridden(options: GroupT, said: Mapping[str, object]) -> GroupT:
    """Like `changed`, with what a caller says: None leaves an option as it is. Raises UsageError."""
    check_names(said, [declared.name for declared in options_of(type(options))])
    return changed(options, {name: value for name, value in said.items() if value is not None})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(option,))
def group(cls: type[C]) -> type[C]:
    """Turns a class with `option` fields into a group: a frozen dataclass with keyword arguments."""
    for name in cls.__annotations__:
        field = cls.__dict__.get(name)
        if isinstance(field, dataclasses.Field):
            declared: Option = field.metadata["option"]
            declared.name, declared.group = name, cls  # type: ignore[assignment]
            declared.flags = declared.flags or (f"--{name.replace('_', '-')}",)
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


def options_of(group: type[Group]) -> tuple[Option, ...]:
    """The options of a group in declaration order."""
    return tuple(field.metadata["option"] for field in dataclasses.fields(group))  # type: ignore[arg-type]


# ---------------------------------------------------------------- keywords


def keywords(
    group: Callable[P, G],
) -> Callable[[Callable[[S, A, G], R]], Callable[Concatenate[S, A, P], R]]:
    """Turns a method `(self, argument, options: Group)` into one that takes the options as keywords.

    Type checkers, `help()` and editors see every option with its type and default.
    """

    def decorate(method: Callable[[S, A, G], R]) -> Callable[Concatenate[S, A, P], R]:
        decorated: Callable[Concatenate[S, A, P], R] = _with_keywords(method, group)
        return decorated

    return decorate


def only_keywords(group: Callable[P, G]) -> Callable[[Callable[[S, G], R]], Callable[Concatenate[S, P], R]]:
    """Like `keywords`, for a method `(self, options: Group)`."""

    def decorate(method: Callable[[S, G], R]) -> Callable[Concatenate[S, P], R]:
        decorated: Callable[Concatenate[S, P], R] = _with_keywords(method, group)
        return decorated

    return decorate


def _with_keywords(method: Callable[..., Any], group: Any) -> Any:
    *first, last = inspect.signature(method).parameters.values()
    options = list(inspect.signature(group).parameters.values())
    names = {parameter.name for parameter in options}
    positional = [p.name for p in (*first, *options) if p.kind is not p.KEYWORD_ONLY]

    @wraps(method)
    def call(*values: Any, **arguments: Any) -> Any:
        if len(values) > len(positional):
            raise TypeError(f"{method.__name__}() takes at most {len(positional) - 1} arguments by position")
        for name, value in zip(positional, values, strict=False):
            if name in arguments:
                raise TypeError(f"{method.__name__}() got multiple values for argument {name!r}")
            arguments[name] = value
        values_by_option = {name: arguments.pop(name) for name in names & arguments.keys()}
        if unknown := arguments.keys() - {p.name for p in first}:
            known = ", ".join(sorted(names))
            raise TypeError(f"{method.__name__}() has no option {min(unknown)!r}; its options are {known}")
        return method(**arguments, **{last.name: group(**values_by_option)})

    result = inspect.signature(method).return_annotation
    parameters = sorted([*first, *options], key=lambda p: p.kind)  # stable: positional parameters first
    call.__signature__ = inspect.Signature(parameters, return_annotation=result)  # type: ignore[attr-defined]
    call.__doc__ = "\n\n".join([inspect.cleandoc(method.__doc__ or ""), _describe(group)])
    return call


def _describe(group: type[Group]) -> str:
    """Describes the options for a docstring."""
    lines = ["Options:"]
    for declared in options_of(group):
        default = f" Default: {declared.default_text}." if declared.default_text else ""
        lines.append(f"    {declared.name}: {declared.help}{default}")
    return "\n".join(lines)
