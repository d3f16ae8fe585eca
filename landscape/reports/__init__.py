"""One self-contained page about all stored runs of a folder."""

from landscape.reports.page import FIGURES, ReportSummary, write_report

__all__ = ["FIGURES", "ReportSummary", "write_report"]
