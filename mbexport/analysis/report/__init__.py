"""One HTML page about one machine's profiles, which needs neither a network nor a server.

:mod:`choose` picks the profiles, :mod:`data` gathers their figures, the sections draw them with Plotly and repeat them
as tables, and :mod:`page` puts them together.
"""

from mbexport.analysis.report.choose import choose
from mbexport.analysis.report.write import Written, write_report

__all__ = ["Written", "choose", "write_report"]
