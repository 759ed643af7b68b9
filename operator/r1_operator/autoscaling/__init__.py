"""Metrics window → wanted replicas, with the reason. Pure."""
