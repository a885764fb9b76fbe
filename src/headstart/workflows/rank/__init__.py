"""Which network to take: several sources on the same images, with accuracy, speed and size."""

from headstart.workflows.rank.run import DEFAULT_SOURCES, Ranked, Ranking, run_ranking

__all__ = ["DEFAULT_SOURCES", "Ranked", "Ranking", "run_ranking"]
