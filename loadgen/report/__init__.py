"""Draws one or several runs as a single HTML file that needs neither network nor scripts.

Plots are Vega-Lite specifications rendered to SVG while the file is written, by vl-convert (one wheel, no
dependencies; 33 MB to download). The page is a few hundred kilobytes without a script: inlining a plotting
library would add 0.9 MB (Vega) or more to every run's report and fail where scripts are forbidden, in
mail or CI artefacts. It prints, and follows the reader's light or dark theme because every colour is a CSS
variable; series are switched by CSS alone. matplotlib draws SVG as well, but brings eight packages of its
own and knows neither CSS variables nor tooltips.
"""

from loadgen.report.command import report_command
from loadgen.report.page import write_report

__all__ = ["report_command", "write_report"]
