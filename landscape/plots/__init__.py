"""Results to pictures: matplotlib figures without pyplot, without torch."""

from landscape.plots.figure import figure_for, save
from landscape.plots.spectrum import spectrum
from landscape.plots.style import style

__all__ = ["figure_for", "save", "spectrum", "style"]
