"""Results to pictures: matplotlib figures without pyplot, without torch."""

from landscape.plots.density import density
from landscape.plots.figure import figure_for, figure_of_series, figure_of_study, save, series_views
from landscape.plots.history import history
from landscape.plots.layers import layers
from landscape.plots.spectrum import spectrum
from landscape.plots.style import style
from landscape.plots.sweep import sweep
from landscape.plots.trace import trace

__all__ = [
    "density",
    "figure_for",
    "figure_of_series",
    "figure_of_study",
    "history",
    "layers",
    "save",
    "series_views",
    "spectrum",
    "style",
    "sweep",
    "trace",
]
