"""A page about a fitted estimator of tables: one HTML file that needs no network."""

from gpumlp.report.page import report_html, write_report

__all__ = ["report_html", "write_report"]
