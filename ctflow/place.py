"""Places of a user's own solvers and priors, such as "annealed:Annealed": a module, and a name in it."""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any


def is_place(name: object) -> bool:
    """Whether a name is a place."""
    return re.fullmatch(r"[^\W\d][\w.]*:[^\W\d]\w*", str(name)) is not None


def found_at(place: str) -> Any:
    """What a place's module has under its name, or None.

    The module is one that is installed, or a file in the folder where the program runs.

    Raises
    ------
    ValueError
        If there is no such module. What is wrong within it is raised as it is.
    """
    module_name, _, name = place.partition(":")
    if os.getcwd() not in sys.path:
        # Last: what is installed is not to be hidden by a file that happens to lie here.
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # What the module itself lacks is another matter.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(f"{place}: expected a module {module_name!r}, found none") from error
    return getattr(module, name, None)


def file_of(place: str) -> Path:
    """The file of a place's module, which `found_at` has found."""
    return Path(str(sys.modules[place.partition(":")[0]].__file__))
