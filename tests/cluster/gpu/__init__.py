"""A device plugin that offers pretended GPUs over the kubelet's real device-plugin API."""
