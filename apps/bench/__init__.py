"""Comparisons of fields under one protocol."""
