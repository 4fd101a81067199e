"""Functions named in the configuration as `module:name`."""

import functools
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

from lamdagent.errors import UserError


def load_function(path: str, where: str = "") -> Any:
    """The function or class at `path`, which is `module:name`; its module is imported.

    Args:
        path: as the user wrote it.
        where: the key of the configuration that holds it, for the message.

    Raises:
        UserError: it cannot be imported, or there is none of that name.
    """
    try:
        if not all(path.partition(":")):
            raise ValueError("the form is module:function")
        return pkgutil.resolve_name(path)
    except Exception as error:  # a module of the user may raise anything while it is imported
        key = f"{where}: " if where else ""
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{key}{path!r} is no module:function on the Python path ({reason})") from error


def load_maker(path: str, arguments: Mapping[str, Any], protocol: type, where: str) -> Callable[[], Any]:
    """Maker of the user's part at `path`: a class with the methods of `protocol`, or a function where one will do.

    Args:
        path: `module:Name`, as the user wrote it.
        arguments: what the class is made with, or what the function gets by name besides what it is called with.
        protocol: a `typing.Protocol`; a function will do where its one method is `__call__`.
        where: the group of the configuration whose `kind` and `arguments` these are, for the message.

    Raises:
        UserError: it cannot be imported, lacks a method, or does not take the arguments.
    """
    target = load_function(path, f"{where}.kind")
    if not inspect.isclass(target) and _methods(protocol) != ["__call__"]:
        raise UserError(f"{where}.kind: {path} is no class, but one with {', '.join(_methods(protocol))} is wanted")
    if not inspect.isclass(target):
        check_call(target, f"{where}.kind", *_parameters(protocol, "__call__"), **arguments)
        return lambda: functools.partial(target, **arguments)
    for name in _methods(protocol):
        method = next((vars(each)[name] for each in target.__mro__ if name in vars(each)), None)
        if method is None:
            raise UserError(f"{where}.kind: {path} has no method {name}({', '.join(_parameters(protocol, name))})")
        check_call(method, f"{where}.kind", "self", *_parameters(protocol, name))
    check_call(target, f"{where}.arguments", **arguments)
    return functools.partial(target, **arguments)


def check_call(target: Any, where: str, *positional: str, **named: Any) -> None:
    """See that `target` can be called so; `positional` are names that say what it gets.

    Raises:
        UserError: it cannot.
    """
    try:
        inspect.signature(target).bind(*positional, **named)
    except (TypeError, ValueError) as error:
        name = getattr(target, "__qualname__", repr(target))
        called = ", ".join([*positional, *(f"{key}={value!r}" for key, value in named.items())])
        raise UserError(f"{where}: {name} cannot be called as {name}({called}): {error}") from None


def _methods(protocol: type) -> list[str]:
    own = [name for name, member in vars(protocol).items() if inspect.isfunction(member)]
    return [name for name in own if name == "__call__" or not name.startswith("_")]


def _parameters(protocol: type, method: str) -> list[str]:
    return [name for name in inspect.signature(getattr(protocol, method)).parameters if name != "self"]
