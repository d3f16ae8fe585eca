"""Curvature while a training loop runs."""
