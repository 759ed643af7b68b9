"""Measures the operator on the local cluster, from the checkout: a start by stages, a dead rank, memory, writes."""
