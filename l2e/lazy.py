"""What is imported when it is asked for.

A wrong setting of `pretrain.py` is told after 2.4 s that way; with torch's compiler, transformers, DeepSpeed and SciPy
loaded first it took 7.6 s (two CPU cores, a training run beside).
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def later(place: str) -> Callable[..., Any]:
    """The function that "module:name" names, imported when it is called."""

    def call(*arguments: Any) -> Any:
        return named(place)(*arguments)

    return call


def named(place: str) -> Any:
    """What "module:name" names."""
    module, name = place.split(":")
    return getattr(import_module(module), name)


def exports(package: str, **homes: str) -> Callable[[str], Any]:
    """The `__getattr__` of a package; hidden from type checkers, which read the imports beside it.

    Args:
        package: its `__name__`.
        homes: by name of a module in it, the public names that it holds, with spaces between. A name that is also a
            module's would be hidden by it as soon as that module is imported.
    """
    modules: Mapping[str, str] = {name: module for module, names in homes.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return get
