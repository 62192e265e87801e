"""A run: the step, the loop around it, checkpoints, evaluation, reports of failures."""
