"""A small prior on disk, for tests of what loads one."""

from __future__ import annotations

from pathlib import Path

from ctflow.flows.path import AffinePath
from ctflow.flows.prior import FlowPrior
from ctflow.flows.store import save_prior
from ctflow.representation import Representation
from tests.ctflow.flows.test_network import TINY, tiny


def write_prior(folder: Path) -> Path:
    """Save an untrained prior for images of about 0.3 / mm; its path, without an ending."""
    representation = Representation(0.3, 0.3, unit="1/mm")
    prior = FlowPrior(tiny(), AffinePath.linear(), representation, multiple=TINY.multiple)
    save_prior(prior, folder / "tiny")
    return folder / "tiny"
