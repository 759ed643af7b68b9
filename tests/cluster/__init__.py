"""A whole, real Kubernetes on one machine, without Docker and without root: for tests and for trying out.

See README.md in this folder. `python -m tests.cluster` is the command line, `tests.cluster.cluster.Cluster` the Python
interface. Nothing is imported here: this package's small processes inside the cluster should stay small.
"""
