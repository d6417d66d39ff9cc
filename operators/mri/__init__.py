"""Magnetic resonance: Fourier sampling, coils, noise scans, masks and trajectories."""

from operators.mri.column_masks import equispaced_mask, magic_mask, random_mask
from operators.mri.density_compensation import pipe_menon, voronoi
from operators.mri.fourier import CartesianFourier, centred_fft, centred_ifft
from operators.mri.nonuniform import NonuniformFourier
from operators.mri.off_resonance import OffResonance
from operators.mri.poisson_disc import poisson_disc
from operators.mri.sampling_pattern import SamplingMask, Trajectory
from operators.mri.toeplitz import ToeplitzGram
from operators.mri.trajectories import golden_angle, radial, spiral
from operators.mri.trajectory_gradient import nonuniform_fourier

__all__ = [
    "CartesianFourier",
    "NonuniformFourier",
    "OffResonance",
    "SamplingMask",
    "ToeplitzGram",
    "Trajectory",
    "centred_fft",
    "centred_ifft",
    "equispaced_mask",
    "golden_angle",
    "magic_mask",
    "nonuniform_fourier",
    "pipe_menon",
    "poisson_disc",
    "radial",
    "random_mask",
    "spiral",
    "voronoi",
]
