"""From detector counts to clean line integrals: pure functions on tensors, one correction a file."""

from operators.ct.corrections.bad_bins import fill_invalid, find_bad_bins, find_bad_stripes, repair_bins
from operators.ct.corrections.beam_hardening import linearise, polychromatic, water_linearisation
from operators.ct.corrections.beam_monitor import beam_from_air, normalise_beam
from operators.ct.corrections.flat_field import flat_field, open_beam_counts
from operators.ct.corrections.frames import frames_over_time
from operators.ct.corrections.gain import estimate_gain
from operators.ct.corrections.logarithm import line_integrals
from operators.ct.corrections.stripes import STRIPE_WIDTH, remove_stripes
from operators.ct.corrections.wavelet_stripes import remove_stripes_wavelet

__all__ = [
    "STRIPE_WIDTH",
    "beam_from_air",
    "estimate_gain",
    "fill_invalid",
    "find_bad_bins",
    "find_bad_stripes",
    "flat_field",
    "frames_over_time",
    "line_integrals",
    "linearise",
    "normalise_beam",
    "open_beam_counts",
    "polychromatic",
    "remove_stripes",
    "remove_stripes_wavelet",
    "repair_bins",
    "water_linearisation",
]
