"""Named settings with some of them changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

Settings = TypeVar("Settings")


def standard_settings(presets: Mapping[str, Settings], preset: str, changes: Iterable[str]) -> Settings:
    """The settings of that name, a dataclass; ValueError for an unknown name, or for changes it has not."""
    if preset not in presets:
        raise ValueError(f"no preset {preset!r}; known: {', '.join(presets)}")
    standard: Any = presets[preset]
    known = [field.name for field in fields(standard)]
    for name in changes:
        if name not in known:
            raise ValueError(f"{preset}: no setting {name!r}; known: {', '.join(known)}")
    return presets[preset]
