"""Reports: a result as one HTML page without script or request, as JSON and as a model card.

This package's face is bare because `report.page.render` loads Jinja and matplotlib, and tables need neither.
"""

from __future__ import annotations

__all__: list[str] = []
