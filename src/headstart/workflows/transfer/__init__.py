"""Transfer: from a source and labelled images to a model and an estimate of its accuracy."""
