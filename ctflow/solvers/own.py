"""Solvers that are not ctflow's: a class of a user's module, by its place."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import sys
from pathlib import Path


def own_solver(place: str) -> type:
    """The solver class at a place such as "annealed:Annealed" or "lab.solvers.annealed:Annealed".

    The module is one that is installed, or a file in the folder where the program runs.

    Raises
    ------
    ValueError
        If there is none, or it is no dataclass of settings that can be called.
    """
    module_name, _, name = place.partition(":")
    if os.getcwd() not in sys.path:
        # Last: what is installed is not to be hidden by a file that happens to lie here.
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # What the module itself lacks is another matter.
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise
        raise ValueError(f"solver {place!r}: expected a module {module_name!r}, found none") from error
    found = getattr(module, name, None)
    called = any("__call__" in vars(base) for base in getattr(found, "__mro__", ()))
    if not (isinstance(found, type) and dataclasses.is_dataclass(found) and called):
        what = f"a dataclass {name!r} with a method __call__"
        raise ValueError(f"solver {place!r}: expected {what} in {module.__file__}, found none")
    return found


def own_file(solver: type) -> Path:
    """The file that a solver class is in."""
    return Path(inspect.getfile(solver))
