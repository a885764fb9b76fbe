"""A transfer: a head on a frozen source, selected, fitted and evaluated on other images.

Its face: the run and what it returns.
"""

from headstart.workflows.transfer.run import Transferred, run_transfer

__all__ = ["Transferred", "run_transfer"]
