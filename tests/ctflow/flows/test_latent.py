"""Latent priors against the parts of the pipelines that they are made of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ctflow.flows.latent import load_latent_prior
from ctflow.flows.store import load_prior, prior_files
from tests.ctflow import latents
from tests.operators.examples import random

TEXT = (torch.zeros(2, 1, latents.WIDTH), torch.zeros(2, latents.WIDTH))


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return latents.saved(tmp_path_factory.mktemp("models") / "tiny-sd3", latents.stable_diffusion())


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return latents.saved(tmp_path_factory.mktemp("models") / "tiny-flux", latents.flux())


def test_stable_diffusion_runs_from_data_to_noise(sd3: Path) -> None:
    prior, transformer = load_latent_prior(sd3), latents.stable_diffusion()
    x, t = random((2, latents.CHANNELS, 6, 8), torch.float32, 0), torch.tensor([0.25, 0.9])
    expected = transformer(x, TEXT[0], TEXT[1], 1000 * (1 - t), return_dict=False)[0]
    assert torch.allclose(prior.velocity(x, t), -expected, atol=1e-6)
    assert prior.name == "tiny-sd3"
    assert not prior.representation.affine
    # Any leading axes, as states of a trajectory or slices of a volume have them.
    stacked = prior.velocity(x.expand(3, 2, *x.shape[1:]), t.expand(3, 2))
    assert torch.allclose(stacked[1], prior.velocity(x, t), atol=1e-6)


def test_flux_takes_blocks_of_the_latent_with_their_places(flux: Path) -> None:
    prior, transformer = load_latent_prior(flux), latents.flux()
    x, t = random((2, latents.CHANNELS, 6, 8), torch.float32, 0), torch.tensor([0.25, 0.9])
    tokens = [(i, j) for i in range(3) for j in range(4)]
    packed = torch.stack([x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].flatten(1) for i, j in tokens], 1)
    places = torch.tensor([(0.0, i, j) for i, j in tokens])
    moved = transformer(
        packed, TEXT[0], TEXT[1], 1 - t, img_ids=places, txt_ids=torch.zeros(1, 3), return_dict=False
    )[0]
    expected = torch.empty_like(x)
    for k, (i, j) in enumerate(tokens):
        expected[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = moved[:, k].unflatten(
            1, (latents.CHANNELS, 2, 2)
        )
    assert torch.allclose(prior.velocity(x, t), -expected, atol=1e-6)


def test_guidance(sd3: Path, tmp_path: Path) -> None:
    """With zeros for a text, text and null are one; distilled models take guidance as an input."""
    x = random((1, latents.CHANNELS, 4, 4), torch.float32, 0)
    plain, guided = (load_latent_prior(sd3, guidance=w) for w in (1.0, 3.0))
    assert torch.allclose(plain.velocity(x, 0.5), guided.velocity(x, 0.5), atol=1e-5)
    with torch.no_grad():
        for prior in (plain, guided):
            prior.network.tokens += 1.0  # type: ignore[union-attr]
    null = load_latent_prior(sd3).velocity(x, 0.5)
    expected = null + 3 * (plain.velocity(x, 0.5) - null)
    assert torch.allclose(guided.velocity(x, 0.5), expected, atol=1e-5)
    folder = latents.saved(tmp_path / "distilled", latents.flux(guidance_embeds=True))
    low, high = (load_latent_prior(folder, guidance=w).velocity(x, 0.5) for w in (1.0, 3.5))
    assert not torch.allclose(low, high)


def test_a_pipeline_is_loaded_by_the_name_of_its_folder(sd3: Path) -> None:
    x = random((1, latents.CHANNELS, 4, 4), torch.float32, 0)
    prior = load_prior(sd3, precision="bfloat16")
    full = load_latent_prior(sd3)
    assert prior.velocity(x, 0.3).dtype == torch.float32
    assert torch.allclose(prior.velocity(x, 0.3), full.velocity(x, 0.3), atol=0.05)
    assert [file.name for file in prior_files(sd3)[:2]] == ["model_index.json", "scheduler_config.json"]
    names = {name.split(".")[0] for name, _ in prior.named_parameters()}
    assert names == {"network", "autoencoder"}
    assert not any(parameter.requires_grad for parameter in prior.parameters())


def test_errors(sd3: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model_index\.json: expected the index of a diffusers pipeline"):
        load_latent_prior(tmp_path)
    with pytest.raises(ValueError, match="tiny-sd3: expected text encoders for a prompt, found none"):
        load_latent_prior(sd3, prompt="a slice of an abdomen")
    with pytest.raises(ValueError, match="precision: expected float32 or bfloat16, found 'half'"):
        load_latent_prior(sd3, precision="half")
    index = json.loads((sd3 / "model_index.json").read_text())
    for part, found, message in (
        ("transformer", "UNet2DModel", "transformer: expected one of SD3Transformer2DModel, .*UNet2DModel"),
        ("scheduler", "DDIMScheduler", "scheduler: expected one of flow matching, found DDIMScheduler"),
    ):
        (tmp_path / "model_index.json").write_text(json.dumps({**index, part: ["diffusers", found]}))
        with pytest.raises(ValueError, match=message):
            load_latent_prior(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="vae: expected a AutoencoderKL"):
        load_latent_prior(tmp_path)
