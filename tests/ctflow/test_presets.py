"""Named settings."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ctflow.presets import standard_settings


@dataclass(frozen=True)
class Cake:
    """Something with settings."""

    eggs: int = 3
    sugar: float = 0.2


def test_a_known_name_and_known_changes_give_the_settings() -> None:
    cake = Cake(eggs=4)
    assert standard_settings({"sponge": cake}, "sponge", ["eggs"]) is cake


def test_unknown_names_and_changes_are_told_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no preset 'pie'; known: sponge, plain"):
        standard_settings({"sponge": Cake(), "plain": Cake()}, "pie", [])
    with pytest.raises(ValueError, match="sponge: no setting 'salt'; known: eggs, sugar"):
        standard_settings({"sponge": Cake()}, "sponge", ["salt"])
