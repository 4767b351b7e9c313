"""Groups of options: reading, checking and describing values."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import m3index.cli  # noqa: F401  (registers the commands)
from m3index.cli.apps import all_commands
from m3index.errors import UsageError
from m3index.options import (
    Custom,
    FileName,
    Flag,
    Group,
    Kind,
    Number,
    OneOf,
    OptionError,
    Text,
    Texts,
    Whole,
    changed,
    check,
    group,
    keywords,
    only_keywords,
    option,
    options_of,
    overridden,
)


@group
class Noun(Group):
    panel = "Noun"

    count: int = option(Whole(1, 9), "How many.", default=3, flags=("-n", "--count"), variable=True)
    share: float = option(Number(0.0, 1.0), "How much.", default=0.5)
    words: Sequence[str] | None = option(Texts(), "Which.", default=None)
    loud: bool = option(Flag(), "Whether.", default=False)


@group
class Verb(Noun):
    """Adds an option and changes the default of another."""

    name: str = option(Text("NAME"), "Who.", default="nobody", kw_only=False)
    count: int = option(Whole(1), "How many.", default=7)

    def check(self) -> None:
        if self.name == "nobody" and self.loud:
            raise UsageError("nobody is never loud.")


class Speaker:
    @only_keywords(Verb)
    def __init__(self, options: Verb) -> None:
        """Speaks."""
        self.options = options

    @keywords(Noun)
    def say(self, text: str, options: Noun) -> str:
        """Says it."""
        return text * options.count


def test_a_group_is_a_frozen_dataclass_of_keywords() -> None:
    noun = Noun(count=2, words="one")
    assert (noun.count, noun.share, noun.words) == (2, 0.5, ("one",))
    with pytest.raises(AttributeError):
        noun.count = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        Noun(2)  # type: ignore[misc]
    assert Verb("me").name == "me"
    assert (Verb().count, Noun().count) == (7, 3)


def test_options_know_their_names_flags_and_variables() -> None:
    count, share, *_ = options_of(Noun)
    assert (count.name, count.flags, count.envvar, count.panel) == (
        "count",
        ("-n", "--count"),
        "M3INDEX_COUNT",
        "Noun",
    )
    assert (share.flags, share.envvar, share.default_text) == (("--share",), None, "0.5")
    assert [o.name for o in options_of(Verb)] == ["count", "share", "words", "loud", "name"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count takes a whole number from 1 to 9, not 0."),
        ({"count": "3"}, "count takes a whole number from 1 to 9, not '3'."),
        ({"count": True}, "count takes a whole number from 1 to 9, not True."),
        ({"count": 3.0}, "count takes a whole number from 1 to 9, not 3.0."),
        ({"share": 1.5}, "share takes a number from 0 to 1, not 1.5."),
        ({"share": float("nan")}, "share takes a number from 0 to 1, not nan."),
        ({"words": 5}, "words takes a list of texts, not 5."),
        ({"words": [""]}, "words takes a list of texts, not ['']."),
        ({"loud": 1}, "loud takes true or false, not 1."),
        ({"loud": "true"}, "loud takes true or false, not 'true'."),
    ],
)
def test_an_invalid_value_is_reported(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        Noun(**values)
    assert str(caught.value) == message


def test_texts_are_parsed_by_the_kind() -> None:
    noun = Noun.from_texts({"count": "4", "share": "0.25", "words": ["a", "b"], "loud": True, "other": "x"})
    assert noun == Noun(count=4, share=0.25, words=["a", "b"], loud=True)
    assert Noun.from_texts({"loud": "false"}).loud is False
    for texts in (
        {"count": "four"},
        {"count": "10"},
        {"share": "much"},
        {"loud": "perhaps"},
        {"count": "4.0"},
    ):
        with pytest.raises(OptionError, match=f"{next(iter(texts))} takes"):
            Noun.from_texts(texts)


def test_a_required_option() -> None:
    @group
    class Needy(Group):
        out: str = option(FileName(), "Where.")

    assert Needy(out=Path("x")).out == "x"
    with pytest.raises(TypeError):
        Needy()  # type: ignore[call-arg]
    with pytest.raises(OptionError, match=r"out is required\."):
        Needy.from_texts({})


def test_none_is_an_option_left_out() -> None:
    nothing: dict[str, Any] = dict.fromkeys(["count", "share", "loud", "words", "name"])
    assert Verb(**nothing) == Verb()
    assert Speaker(**nothing).options.count == 7
    made = Verb(name="she", count=8)
    assert overridden(made, {"count": None, "loud": True}) == Verb(name="she", count=8, loud=True)
    with pytest.raises(UsageError, match="There is no option 'cuont'"):
        overridden(made, {"cuont": None})


def test_rules_of_several_options() -> None:
    with pytest.raises(UsageError, match="never loud"):
        Verb(loud=True)
    assert Verb("me", loud=True).loud
    with pytest.raises(UsageError, match="never loud"):
        changed(Verb(), {"loud": True})
    with pytest.raises(UsageError, match=r"no option 'volume'. The options are count, "):
        changed(Verb(), {"volume": 3})


def test_keywords() -> None:
    speaker = Speaker("me", count=2)
    assert (speaker.options.name, speaker.options.count) == ("me", 2)
    assert Speaker(name="me").options.name == "me"
    assert speaker.say("a") == "aaa"
    assert speaker.say("a", count=2) == speaker.say(text="a", count=2) == "aa"
    assert str(inspect.signature(Speaker.say)).startswith("(self, text: 'str', *, count: 'int' = 3, ")
    assert "Says it.\n\nOptions:\n    count: How many. Default: 3." in (Speaker.say.__doc__ or "")
    with pytest.raises(OptionError, match="count"):
        speaker.say("a", count=10)
    for call in (
        lambda: speaker.say("a", volume=3),  # type: ignore[call-arg]
        lambda: speaker.say("a", 3),  # type: ignore[call-arg]
        lambda: Speaker("me", name="me"),  # type: ignore[misc]
        lambda: speaker.say(),  # type: ignore[call-arg]
    ):
        with pytest.raises(TypeError, match=r"say\(\)|__init__\(\)"):
            call()


def test_an_argument_is_checked_like_an_option() -> None:
    assert check("to", Whole(1), 3) == 3
    with pytest.raises(OptionError, match=r"to takes a whole number from 1 up, not '3'\."):
        check("to", Whole(1), "3")


def test_a_long_value_is_shortened() -> None:
    with pytest.raises(OptionError) as caught:
        Noun(count="x" * 1000)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 150


KINDS: list[Kind] = [
    Flag(), Text(), FileName(), Texts(), OneOf(("a", "b")), Whole(), Whole(1, 5), Number(), Number(0.0, 1.0),
    Custom(int, "a number"),
]  # fmt: skip
_anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(),
    st.lists(st.one_of(st.text(), st.integers()), max_size=3),
    st.dictionaries(st.text(), st.integers(), max_size=2),
)  # fmt: skip


@given(kind=st.sampled_from(KINDS), value=_anything)
def test_a_kind_accepts_its_own_results(kind: Kind, value: Any) -> None:
    """`check` is idempotent and raises only ValueError or TypeError."""
    try:
        checked = kind.check(value)
    except (ValueError, TypeError, OverflowError):
        return
    assert kind.check(checked) == checked


@given(kind=st.sampled_from([k for k in KINDS if not k.is_repeatable]), text=st.text())
def test_a_text_is_parsed_or_refused(kind: Kind, text: str) -> None:
    try:
        value = kind.parse(text)
    except ValueError:
        return
    assert kind.check(value) == value


# --------------------------------------------------------- all declared options


def declared() -> list[Any]:
    return [
        pytest.param(option, id=f"{command.name}-{option.name}")
        for command in all_commands().values()
        for option in command.options.values()
    ]


@pytest.mark.parametrize("declaration", declared())
def test_every_declaration_is_complete(declaration: Any) -> None:
    assert declaration.help.endswith(".")
    assert declaration.group.panel
    if not declaration.is_required and declaration.default is not None:
        declaration.check(declaration.default)
    if declaration.secret:
        assert not declaration.file


def test_only_some_options_have_variables() -> None:
    variables = {o.envvar for c in all_commands().values() for o in c.options.values() if o.variable}
    assert variables == {
        f"M3INDEX_{name}"
        for name in (
            "CACHE", "COLLECTION", "DB", "DEVICE", "ENCODER", "INSECURE", "JSON", "METRICS_FILE",
            "PRECISION", "QUIET", "SERVER", "SERVE_TOKEN_FILE", "TENANT", "TIMEOUT", "TOKEN_FILE", "URI",
        )
    }  # fmt: skip
    secrets = {o.envvar for c in all_commands().values() for o in c.secrets.values()}
    assert secrets == {"M3INDEX_TOKEN", "M3INDEX_SERVE_TOKEN"}


def test_one_option_is_one_flag() -> None:
    """Within a command, no two options share a flag; across commands, an option has one flag."""
    flags: dict[str, set[tuple[str, ...]]] = {}
    for command in all_commands().values():
        written = [flag for declaration in command.options.values() for flag in declaration.flags]
        assert len(written) == len(set(written)), command.name
        for name, declaration in command.options.items():
            flags.setdefault(name, set()).add(declaration.flags)
    assert {name: found for name, found in flags.items() if len(found) > 1} == {}
