"""Perturbed weights and gradients: perturbations, ratio classes, sharpness, per-example weights."""
