"""The Kubernetes operator for DeepSeek-R1."""
