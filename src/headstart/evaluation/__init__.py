"""How sure a number is: scores with intervals, paired comparisons, one verdict.

In: probabilities, labels, and who was right on which image. Out: the records of ``records``.
Imports only errors and records of ours, and SciPy inside the modules that need it; nothing is
imported here, so that naming the package stays free. Called by studies and the command line.
"""

from __future__ import annotations

__all__: list[str] = []
