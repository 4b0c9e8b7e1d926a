"""Draws one or several runs as a single HTML file that needs neither network nor scripts.

Plots are Vega-Lite specifications rendered to SVG while the file is written (vl-convert, no dependency of
its own): the page is a few hundred kilobytes instead of the megabyte or more of inlined plotting code that
plotly or Bokeh need, opens where scripts are forbidden (mail, CI artefacts), prints, and follows the
reader's light or dark theme because every colour is a CSS variable. matplotlib would draw the same at
three times the number of installed packages and without names on its marks.
"""

from loadgen.report.command import report_command
from loadgen.report.page import write_report

__all__ = ["report_command", "write_report"]
