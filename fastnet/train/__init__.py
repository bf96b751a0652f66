"""Training: one step, the loop around it, evaluation, and the record of a run."""
