"""From a file name and a callable's name to a handler.

The file is compiled here and not imported by name: a handler in `json.py` or `queue.py` must not
get the standard library's module. It still has a name, `__file__`, a spec and its package, so
relative imports, pickling and tracebacks work as in a module that was imported.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from os.path import isfile, join, normpath, splitext
from types import CodeType, FunctionType, ModuleType
from typing import Any

from functionsplatform._errors import BadHandler

Handler = Callable[[Any, Any], Any]


def load_handler(code_dir: str, file: str, callable_name: str, path: Sequence[str]) -> Handler:
    """The callable of a file below `code_dir`.

    Raises `BadHandler` where the file does not compile or has no such callable, and whatever the
    module raises while it runs.
    """
    source = join(code_dir, normpath(file))
    if not isfile(source):
        raise BadHandler(_missing_file(code_dir, file))
    _extend_path(code_dir, path)
    module = _module(source, _module_name(file))
    handler = _find(module, callable_name, file)
    _check_arguments(handler, callable_name)
    return handler


def rehearse(source: str, callable_name: str) -> Handler:
    """The same for a file of our own, which leaves no module behind."""
    name = "rehearsed"
    module = _module(source, name)
    del sys.modules[name]
    handler = _find(module, callable_name, source)
    _check_arguments(handler, callable_name)
    is_async(handler)
    return handler


def is_async(handler: Handler) -> bool:
    """Whether it is `async def`, as a function or as an object that is called."""
    if type(handler) is FunctionType and not handler.__dict__:
        flags = handler.__code__.co_flags
        return bool(flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR))
    call = getattr(type(handler), "__call__", None)  # noqa: B004 - for what it is, not whether
    return any(
        inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one)
        for one in (handler, call)
    )


def _missing_file(code_dir: str, file: str) -> str:
    try:
        there = sorted(name for name in os.listdir(code_dir) if name.endswith(".py"))
    except OSError:
        there = []
    has = f"; it has {', '.join(there[:8])}" if there else ""
    return f"there is no file {file} in the function's directory{has}"


def _extend_path(code_dir: str, path: Sequence[str]) -> None:
    for entry in reversed([code_dir, *(normpath(join(code_dir, one)) for one in path)]):
        if entry not in sys.path:
            sys.path.insert(0, entry)
        # What the import system may remember of it is older than the code. Its other caches are
        # left alone: clearing them costs a third of a millisecond.
        sys.path_importer_cache.pop(entry, None)


def _module_name(file: str) -> str:
    """`app/main.py` is `app.main`; a name that is taken gets a prefix."""
    parts = splitext(normpath(file))[0].split(os.sep)
    if not all(part.isidentifier() for part in parts):
        parts = ["".join(c if c.isalnum() else "_" for c in parts[-1])]
    name = ".".join(parts)
    if name in sys.modules or parts[0] in sys.stdlib_module_names:
        name = "function_" + name.replace(".", "_")
    return name


def _module(source: str, name: str) -> ModuleType:
    code = _compiled(source)
    package = name.rpartition(".")[0]
    if package:
        importlib.import_module(package)
    loader = importlib.machinery.SourceFileLoader(name, source)
    spec = importlib.util.spec_from_file_location(name, source, loader=loader)
    if spec is None:  # cannot happen with a loader given
        raise BadHandler(f"{source} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _compiled(source: str) -> CodeType:
    with open(source, "rb") as file:
        text = file.read()
    try:
        # One with an unknown encoding or a null byte is a SyntaxError or ValueError, by version.
        code: CodeType = compile(text, source, "exec", dont_inherit=True)
        return code
    except SyntaxError as error:
        line = error.lineno if error.filename == source else None
        text = "".join(traceback.format_exception_only(error))
        raise BadHandler(_syntax_message(error), line, text) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise BadHandler(f"the file does not compile: {error}") from None


def _syntax_message(error: SyntaxError) -> str:
    message = f"{type(error).__name__}: {error.msg}"
    text = (error.text or "").strip()
    return f"{message}: {text[:200]}" if text else message


def _find(module: ModuleType, callable_name: str, file: str) -> Handler:
    found: Any = module
    for part in callable_name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise BadHandler(_missing_callable(module, callable_name, file)) from None
    if not callable(found):
        raise BadHandler(
            f"{callable_name} in {file} is not callable, it is of type {type(found).__name__}"
        )
    handler: Handler = found
    return handler


def _missing_callable(module: ModuleType, callable_name: str, file: str) -> str:
    own = sorted(
        name
        for name, value in vars(module).items()
        if callable(value)
        and not name.startswith("_")
        and getattr(value, "__module__", None) == module.__name__
    )
    has = f"; it has {', '.join(own[:8])}" if own else ""
    return f"{file} has no {callable_name}{has}"


def _plainly_takes_two(handler: Handler) -> bool:
    """Seen without `inspect`, which costs as much as the rest of a load."""
    if type(handler) is not FunctionType or handler.__dict__:
        return False
    code = handler.__code__
    required = code.co_argcount - len(handler.__defaults__ or ())
    return required <= 2 <= code.co_argcount and not code.co_kwonlyargcount


def _check_arguments(handler: Handler, callable_name: str) -> None:
    if _plainly_takes_two(handler):
        return
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return  # written in C, and says nothing about itself
    try:
        signature.bind(None, None)
    except TypeError:
        code = getattr(handler, "__code__", None)
        raise BadHandler(
            f"{callable_name}{signature} must take two arguments: a handler is called as "
            f"{callable_name}(message, context)",
            getattr(code, "co_firstlineno", None),
        ) from None
