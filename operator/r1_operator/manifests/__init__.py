"""Plan → Kubernetes objects, one file per kind of child. Pure."""
