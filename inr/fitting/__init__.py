"""Fitting a field to a signal; `fit.py` shows the whole road."""
