"""Measurements against peers and floors, one script a question; each prints a table."""
