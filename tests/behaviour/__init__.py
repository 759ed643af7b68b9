"""The operator on a real Kubernetes with the engine stand-in: what it does, not how the engine serves."""
