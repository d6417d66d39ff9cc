"""Scan files in, reconstruction files out."""
