"""Where independent work runs: in this process, in processes of this machine, or on a Ray cluster."""

from headstart.system.runners.contract import Runner, in_order
from headstart.system.runners.local import LOCAL, LocalRunner, ProcessRunner
from headstart.system.runners.named import RUNNER_VARIABLE, runner_named

__all__ = ["LOCAL", "RUNNER_VARIABLE", "LocalRunner", "ProcessRunner", "Runner", "in_order", "runner_named"]
