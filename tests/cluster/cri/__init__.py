"""A small container runtime (CRI v1) for the local test cluster: a container is a process tree in a bubblewrap view."""
