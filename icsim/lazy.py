"""Packages that show what they offer and load it when it is asked for (PEP 562)."""

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any


def lazily(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list]:
    """`__getattr__`, `__dir__` and `__all__` of a package, from the stub beside its `__init__.py`.

    Type checkers read the same stub, a line `from .module import name as name` for each name.

    Args:
        package: Its `__name__`.
        file: Its `__file__`.
    """
    stub = Path(file).with_suffix(".pyi").read_text(encoding="utf-8")
    module_of = {
        alias.name: f"{package}.{line.module}"
        for line in ast.parse(stub).body
        if isinstance(line, ast.ImportFrom) and line.level == 1
        for alias in line.names
    }

    def load(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"{package} has no {name}; it has {', '.join(sorted(module_of))}")
        return getattr(importlib.import_module(module_of[name]), name)

    public = [*sorted(module_of), "__version__"]
    return load, lambda: public, public
