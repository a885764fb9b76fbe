"""A study: strategies and controls on the same splits, with intervals, paired tests and a verdict."""
