"""Priors on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ctflow.flows.path import AffinePath
from ctflow.flows.prior import FlowPrior
from ctflow.flows.store import bundled_priors, load_prior, save_prior
from ctflow.mr_phantoms import random_mr_anatomy
from ctflow.phantoms import HELD_OUT
from ctflow.representation import Representation
from tests.ctflow.flows.test_network import TINY, tiny


def prior() -> FlowPrior:
    """A prior with a small network on the cosine path."""
    path = AffinePath.cosine()
    return FlowPrior(tiny(path), path, Representation(0.03, 0.01, unit="1/mm"), multiple=TINY.multiple)


def test_round_trip(tmp_path: Path) -> None:
    original = prior()
    save_prior(original, tmp_path / "folder" / "mine", card="# mine\n")
    loaded = load_prior(tmp_path / "folder" / "mine")
    x = torch.randn(2, 1, 7, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.velocity(x, 0.3), original.velocity(x, 0.3))
    assert loaded.representation == original.representation
    assert (loaded.path.name, loaded.name, loaded.multiple) == ("cosine", "mine", TINY.multiple)
    assert (tmp_path / "folder" / "mine.md").read_text() == "# mine\n"
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert sorted(file.suffix for file in (tmp_path / "folder").iterdir()) == [".json", ".md", ".safetensors"]


def test_half_precision_rounds_each_weight_once(tmp_path: Path) -> None:
    original = prior()
    full = save_prior(original, tmp_path / "full")
    half = save_prior(original, tmp_path / "half", half=True)
    assert half.stat().st_size < 0.7 * full.stat().st_size
    loaded = load_prior(tmp_path / "half.safetensors")
    for name, value in original.network.unet.state_dict().items():
        assert torch.equal(loaded.network.unet.state_dict()[name], value.half().float())


def test_unknown_name_suggests_the_nearest() -> None:
    assert "ct-small" in bundled_priors()
    with pytest.raises(ValueError, match="no prior 'ct-smal'; did you mean 'ct-small'"):
        load_prior("ct-smal")
    with pytest.raises(ValueError, match=r"no prior at .*nowhere: expected nowhere.json"):
        load_prior("some/folder/nowhere")


def test_bad_files(tmp_path: Path) -> None:
    save_prior(prior(), tmp_path / "mine")
    settings = json.loads((tmp_path / "mine.json").read_text())
    for field, value, message in (
        ("version", 99, "format: expected ctflow-prior version 1"),
        ("path", {"name": "bent"}, "path: expected a prior's settings"),
        ("network", {"sizes": 3}, "network: expected a prior's settings"),
        ("network", {"widths": [8]}, "expected this network's weights"),
        ("network", {"widths": [2**40, 2**40]}, "expected this network's weights"),
        ("network", {"layers": 10**9}, "expected this network's weights"),
        ("network", {"layers": 1.5}, "expected this network's weights"),
    ):
        (tmp_path / "mine.json").write_text(json.dumps(settings | {field: value}))
        with pytest.raises(ValueError, match=message):
            load_prior(tmp_path / "mine")
    (tmp_path / "mine.json").write_text("{")
    with pytest.raises(ValueError, match="expected a prior's settings in JSON"):
        load_prior(tmp_path / "mine")
    (tmp_path / "mine.json").write_text(json.dumps(settings))
    (tmp_path / "mine.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match=r"mine\.safetensors: expected this network's weights"):
        load_prior(tmp_path / "mine")


def test_only_velocity_networks_are_saved(tmp_path: Path) -> None:
    other = FlowPrior(lambda x, t: x, AffinePath.linear(), Representation())
    with pytest.raises(ValueError, match="expected a VelocityNetwork, found function"):
        save_prior(other, tmp_path / "other")


def test_the_bundled_prior_of_complex_images_knows_a_head_from_noise() -> None:
    prior = load_prior("mr-small")
    assert prior.representation.complex
    image = random_mr_anatomy(HELD_OUT, (64, 64), kind="brain")
    clean = torch.stack((image.real, image.imag))[None]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    for t in (0.4, 0.8):
        noisy = prior.path.interpolate(noise, clean, t)
        error = (prior.destination(noisy, t) - clean).square().mean()
        # A Wiener filter for white images of this power is what the network starts from.
        power, spread = clean.square().mean(), ((1 - t) / t) ** 2
        assert float(error) < 0.5 * float(power * spread / (power + spread))
