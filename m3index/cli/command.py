"""Creates typer commands from functions that take groups of options.

A command is a function `(session, arguments ..., groups ...)`. Each parameter whose type is a group becomes
the flags of that group. The group itself parses the values, inside the session, so that the command line, the
environment and m3index.toml report a wrong value like the Python API.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Annotated, Any, Optional, TypeVar

import typer
import typer.core

from m3index.cli.session import Session, session
from m3index.cli.trusting import refusal
from m3index.errors import UsageError
from m3index.options import Group, Option, OptionError, options_of
from m3index.wording import to_install

F = TypeVar("F", bound=Callable[..., None])
GroupT = TypeVar("GroupT", bound=Group)


@dataclass(frozen=True, slots=True)
class Command:
    """A declared command. groups: the groups of its parameters, in order. arguments: the names of its
    positional arguments."""

    name: str
    help: str
    groups: Sequence[type[Group]]
    arguments: frozenset[str]

    @property
    def options(self) -> dict[str, Option]:
        """The options that can be set by a flag, by name, in the order of their panels."""
        options = [o for group in self.groups for o in options_of(group) if o.flag]
        options.sort(key=lambda o: PANELS.index(o.panel) if o.panel in PANELS else len(PANELS))
        return {o.name: o for o in options if o.name not in self.arguments}

    @property
    def secrets(self) -> dict[str, Option]:
        """The options that only a variable can set, because arguments of a process can be seen by others."""
        return {o.name: o for group in self.groups for o in options_of(group) if o.variable and not o.flag}


PANELS = (
    "Query", "Documents", "Verification", "Recall", "Generation", "Evaluation", "Tuning", "Drift", "Student",
    "Loss", "Learning", "Data", "Certificate", "Shards", "Input", "Search", "Filter", "Rerank", "Collection",
    "Run", "Server", "Store", "Encoder", "Output",
)  # fmt: skip
"""The headings of options, in the order of help texts: options of single commands come first."""

COMMANDS: dict[str, Command] = {}
"""The commands of the modules that are imported, by their full names; `apps.all_commands` has all."""


def command(app: typer.Typer, name: str, *, panel: str | None = None) -> Callable[[F], F]:
    """Registers a function as the command `name` of `app`. panel: its heading in the list of commands."""
    full = (
        f"{app.info.name} {name}" if isinstance(app.info.name, str) and app.info.name != "m3index" else name
    )

    def decorate(function: F) -> F:
        parameters = inspect.signature(function, eval_str=True).parameters.values()
        groups = {p.name: p.annotation for p in parameters if _is_group(p.annotation)}
        arguments = [p for p in parameters if p.name not in groups and p.annotation is not Session]
        declared = Command(
            full,
            inspect.cleandoc(function.__doc__ or ""),
            list(groups.values()),
            frozenset(p.name for p in arguments),
        )
        COMMANDS[full] = declared

        own_context = [p.name for p in arguments if p.annotation is typer.Context]

        def run(**values: Any) -> None:
            context = values[own_context[0]] if own_context else values.pop(_CONTEXT.name)
            texts = {name: value for name, value in values.items() if value not in (None, False, [], ())}
            refused = refusal(context, declared.options, texts)
            if refused is not None:  # a run that is not allowed reports in a harmless way
                texts = {name: value for name, value in texts.items() if name in ("json", "quiet")}
            texts |= _secrets(declared)
            with session(full, texts, _collection(declared, texts)) as current:
                if refused is not None:
                    raise refused
                own = {p.name: values[p.name] for p in arguments}
                function(current, **own, **{n: read(group, texts) for n, group in groups.items()})

        run.__name__, run.__doc__ = name, declared.help
        shown = [
            *([] if own_context else [_CONTEXT]),
            *arguments,
            *map(_parameter, declared.options.values()),
        ]
        run.__signature__ = inspect.Signature([p.replace(kind=p.KEYWORD_ONLY) for p in shown])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in shown}
        app.command(name, cls=_TextCommand, rich_help_panel=panel)(run)
        return function

    return decorate


_CONTEXT = inspect.Parameter("typer_context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)


def _secrets(declared: Command) -> dict[str, str]:
    """The secrets in the environment; an empty variable counts as unset."""
    found = {name: os.environ.get(str(o.envvar), "") for name, o in declared.secrets.items()}
    return {name: value for name, value in found.items() if value}


class _TextCommand(typer.core.TyperCommand):
    """A command whose parameters stay texts; its groups parse them."""

    def get_params(self, ctx: Any) -> list[Any]:
        return keep_texts(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        parameters = self.get_params(ctx)
        if any(parameter.name == "words" for parameter in parameters):
            takes_value = {flag: not p.is_flag for p in parameters for flag in p.opts if flag[0] == "-"}
            if (word := excluded_word(args, takes_value)) is not None:
                ctx.fail(_meant(f"m3index {ctx.info_name}", word, word[:2] in takes_value))
        return super().parse_args(ctx, args)


def excluded_word(args: Sequence[str], takes_value: Mapping[str, bool]) -> str | None:
    """The first argument that looks like an exclusion, as `-bees`, which would be read as the option `-b`, or
    like a number of the query, as `-5`. takes_value: whether each flag of the command takes a value."""
    rest = iter(args)
    for argument in rest:
        if argument == "--":
            return None
        if takes_value.get(argument, False):
            next(rest, None)
        elif argument not in takes_value and _EXCLUSION.match(argument):
            is_number = argument[:2] in takes_value and not argument[2].isalpha()
            if not is_number:
                return argument
    return None


_EXCLUSION = re.compile(r"-[^\W_]")


def _meant(command: str, word: str, is_option: bool) -> str:
    """The message for an exclusion, or a number below 0, before which there is no `--`."""
    said = f"{word[:2]} {word[2:]} to give the option {word[:2]}, or " if is_option else ""
    wanted = "search for this number" if word[1].isdigit() else "leave out what has this word"
    return (
        f"{word} is read as an option. Write {said}-- before the query to {wanted}: {command} -- honey {word}"
    )


def keep_texts(parameters: list[Any]) -> list[Any]:
    """Lets texts, and what is not given, pass as they are. Typer would ask pydantic about them, and import
    it, which takes longer than all else of a command that cannot work."""
    for parameter in parameters:
        given = parameter.process_value
        if hasattr(parameter, "type_descriptor") and not isinstance(given, partial):  # since typer 0.29
            parameter.process_value = partial(_kept, parameter, given)
    return parameters


def _kept(parameter: Any, process: Callable[[Any, Any], Any], context: Any, value: Any) -> Any:
    """What typer makes of the value of a parameter."""
    many = parameter.multiple or parameter.nargs == -1
    if value is None and not parameter.required:
        value = () if many else None
    elif not _is_text(value, parameter.type_descriptor.annotation):
        return process(context, value)
    return value if parameter.callback is None else parameter.callback(context, parameter, value)


def _is_text(value: object, annotation: object) -> bool:
    if annotation == list[str]:
        return isinstance(value, list | tuple) and value != () and all(isinstance(v, str) for v in value)
    return annotation is str and isinstance(value, str)


def _collection(declared: Command, texts: Mapping[str, Any]) -> str | None:
    """The collection that a command works on, known before its options are checked; None if it has none."""
    option = declared.options.get("collection")
    return None if option is None else str(texts.get("collection", option.default))


def _is_group(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Group)


def read(group: type[GroupT], texts: Mapping[str, Any]) -> GroupT:
    """Creates a group from texts. Raises UsageError with the name of the flag."""
    try:
        return group.from_texts(texts)
    except OptionError as error:
        flags = {o.name: max(o.flags, key=len) for o in options_of(group)}
        raise UsageError(f"{flags.get(error.option, error.option)} {error.problem}") from None


def _parameter(option: Option) -> inspect.Parameter:
    """An option as a parameter for typer: every value is text, which the group parses."""
    kind = option.kind
    typer_option = typer.Option(
        *option.flags,
        envvar=option.envvar,
        metavar=kind.metavar,
        rich_help_panel=option.panel or None,
        show_default=False,
        show_envvar=option.variable,
        help=_help(option),
    )
    text: Any = Optional[str]  # noqa: UP045  (typer evaluates it)
    default: Any = None
    if kind.is_flag:
        text, default = bool, False
    elif kind.is_repeatable:
        text, default = list[str], []
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[text, typer_option]
    )


def _help(option: Option) -> str:
    """The help text with the default, which typer itself would print in nested brackets."""
    if option.is_required:
        return f"{option.help} Required."
    default = "" if option.shown == "none" else option.default_text
    return f"{option.help} Default: {default}." if default else option.help


def need(*modules: str, extra: str) -> None:
    """Raises UsageError, with the command to install the extra, if one of its modules is missing."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise UsageError(f"This command needs {', '.join(missing)}. {to_install(extra)}")
