"""The page a study leaves behind: one file, no script, no request, readable for years.

In: ``records.Report``. Out: HTML with its figures inside. Imports only errors and records of
ours; matplotlib and Jinja live in the modules that own them and nothing is imported here. Called by
studies and the command line.
"""

from __future__ import annotations

__all__: list[str] = []
