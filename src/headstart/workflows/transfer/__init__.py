"""A transfer: a head on a frozen source, selected, fitted and evaluated on other images."""

from headstart.workflows.transfer.run import Transferred, run_transfer

__all__ = ["Transferred", "run_transfer"]
