"""Joins what decides with what acts: the work queue, the reconcile steps, the process."""
