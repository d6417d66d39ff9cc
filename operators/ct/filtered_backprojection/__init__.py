"""Filtered backprojection: ramp filters, the part that each ray stands for, and weighted backprojection."""

from operators.ct.filtered_backprojection.filtering import FILTERS
from operators.ct.filtered_backprojection.reconstruct import filtered_backprojection
from operators.ct.filtered_backprojection.weights import angular_weights, redundancy_weights

__all__ = ["FILTERS", "angular_weights", "filtered_backprojection", "redundancy_weights"]
