"""Load tests for an R1Deployment."""
