"""Observed → status and conditions of an R1Deployment. Pure."""
