"""Functions named in the configuration as `module:name`."""

import pkgutil
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
