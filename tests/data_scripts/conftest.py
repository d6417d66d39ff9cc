"""The server that the scripts talk to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.data_scripts.served import Served, serving


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr("data_scripts.downloads.time.sleep", lambda seconds: None)
