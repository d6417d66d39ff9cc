"""The smallest score on a line."""

from __future__ import annotations

import pytest
import torch

from operators.ct.line_search import smallest_score, vertex


@pytest.mark.parametrize("place", [40.0, 41.37, 36.08])
def test_the_bottom_of_a_parabola(place: float) -> None:
    assert smallest_score(lambda c: (c - place) ** 2, 40.0, 5.0, 80) == pytest.approx(place, abs=1e-6)


def test_the_search_stays_on_the_detector() -> None:
    assert smallest_score(lambda c: -c, 68.0, 10.0, 80) <= 70.0


def test_vertex() -> None:
    values = torch.tensor([1.0, 0.0, 0.0, 4.0])
    assert vertex(values, 1) == pytest.approx(0.5)
    assert vertex(values, 0) == 0.0
    assert vertex(torch.ones(3), 1) == 0.0
