"""Magnetic resonance: Fourier sampling, coils, noise scans, masks and trajectories."""

from operators.mri.adaptive import adaptive_combine, adaptive_maps, calibration_images
from operators.mri.calibration import calibration_region
from operators.mri.coils import (
    CoilCompression,
    coil_compression,
    compress_coils,
    mix_coils,
    noise_covariance,
    prewhiten,
    whitening_matrix,
)
from operators.mri.column_masks import equispaced_mask, magic_mask, random_mask
from operators.mri.density_compensation import pipe_menon, voronoi
from operators.mri.espirit import espirit
from operators.mri.fourier import CartesianFourier, centred_fft, centred_ifft
from operators.mri.g_factor import g_factor, pseudo_replica_g_factor, pseudo_replica_std
from operators.mri.grappa import grappa
from operators.mri.nonuniform import NonuniformFourier
from operators.mri.off_resonance import OffResonance
from operators.mri.poisson_disc import poisson_disc
from operators.mri.sampling_pattern import SamplingMask, Trajectory
from operators.mri.soft_sense import SoftSENSE
from operators.mri.toeplitz import ToeplitzGram
from operators.mri.trajectories import golden_angle, radial, spiral
from operators.mri.trajectory_gradient import nonuniform_fourier

__all__ = [
    "CartesianFourier",
    "CoilCompression",
    "NonuniformFourier",
    "OffResonance",
    "SamplingMask",
    "SoftSENSE",
    "ToeplitzGram",
    "Trajectory",
    "adaptive_combine",
    "adaptive_maps",
    "calibration_images",
    "calibration_region",
    "centred_fft",
    "centred_ifft",
    "coil_compression",
    "compress_coils",
    "equispaced_mask",
    "espirit",
    "g_factor",
    "golden_angle",
    "grappa",
    "magic_mask",
    "mix_coils",
    "noise_covariance",
    "nonuniform_fourier",
    "pipe_menon",
    "poisson_disc",
    "prewhiten",
    "pseudo_replica_g_factor",
    "pseudo_replica_std",
    "radial",
    "random_mask",
    "spiral",
    "voronoi",
    "whitening_matrix",
]
