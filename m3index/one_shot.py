"""What a process of a single command may do: leave out what the command does not use, keep what is loaded,
and end at once.

A process that belongs to somebody else, who uses m3index as a library, does none of it.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from importlib import import_module
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

_PANDAS_TYPES = "pandas.api.types"
_ours = False
_brief = False


def take() -> None:
    """This process belongs to one command from now on."""
    global _ours
    _ours = True


def be_brief() -> None:
    """The command of this process answers one question. Does nothing in a process that belongs to somebody
    else."""
    global _brief
    _brief = _ours


def is_brief() -> bool:
    """Whether this process ends before a library that makes it faster pays for its import."""
    return _brief


def keep() -> None:
    """What is loaded stays until the process ends, so that the garbage collector never visits it again: each
    full collection over a tokenizer's vocabulary and the modules of torch takes half a second of a run."""
    if _ours:
        gc.freeze()


def import_without_pandas(*modules: str) -> None:
    """Imports pymilvus, and pyarrow if it is among the modules, without pandas and scipy, for a command that
    answers one question. Does nothing for others, or in a process that has one of these libraries already.

    pymilvus imports pandas only to recognise data frames, and pyarrow imports it at the first value that it
    converts, to do the same; that takes longer than to answer `m3index status`. So pymilvus finds a module
    with a class that nothing is an instance of, and pyarrow finds none. pymilvus imports scipy to recognise
    sparse matrices, which a search does not send. Everybody else can import them.
    """
    if not _brief or {"pandas", *modules} & sys.modules.keys():
        return
    pandas, api, types = (ModuleType(name) for name in ("pandas", "pandas.api", _PANDAS_TYPES))
    pandas.DataFrame = pandas.Series = type("NoData", (), {})  # type: ignore[attr-defined]
    types.__getattr__ = _late  # type: ignore[method-assign]
    stubs = {module.__name__: module for module in (pandas, api, types)}
    sys.modules.update(stubs)
    try:
        import_module("pymilvus")
    finally:
        for name in stubs:
            del sys.modules[name]
    helper = getattr(sys.modules.get("pymilvus.client.utils"), "SciPyHelper", None)
    if helper is not None:
        helper._checked = True  # as if it had looked for scipy, and found none
    if "pyarrow" in modules:
        sys.meta_path.insert(0, hidden := _Hidden())
        try:
            import_module("pyarrow").scalar(0)  # it looks for pandas here, and never again
        finally:
            sys.meta_path.remove(hidden)


class _Hidden(MetaPathFinder):
    """Lets pandas look as if it were not installed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:  # noqa: ARG002
        if name == "pandas":
            raise ModuleNotFoundError(name=name)


def _late(name: str) -> Any:
    """A function of pandas that is imported when it is called."""
    if name.startswith("__"):
        raise AttributeError(name)
    return lambda *arguments: getattr(import_module(_PANDAS_TYPES), name)(*arguments)


def end(code: int) -> None:
    """Ends the process at once if it belongs to a command: to take down the libraries that are loaded costs
    up to half a second, and the memory goes back to the system in any case.

    What is registered for the end is done. Where something else is watching or at work (a debugger, a
    profiler, a thread), or the output cannot be written, it returns, and the interpreter ends in its own way.
    """
    others = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    watched = sys.gettrace() or sys.getprofile() or sys.flags.interactive or sys.flags.inspect
    if not _ours or others or watched:
        return
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return
    os._exit(code & 0xFF)
