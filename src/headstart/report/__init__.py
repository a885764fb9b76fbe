"""Reports: a result as one HTML page without script or request, as JSON and as a model card.

`render` is not imported here because it loads Jinja and matplotlib, which tables and JSON do not use.
"""

from __future__ import annotations

__all__: list[str] = []
