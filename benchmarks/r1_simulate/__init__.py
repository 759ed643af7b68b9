"""The fleet simulator: the operator's own mind on simulated machines and engines, request by request."""
