"""Scan formats: each module reduces one to a `Recording`, and none knows another."""
