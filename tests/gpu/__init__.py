"""NVML without a GPU: a stand-in library that the real nvidia-ml-py reads."""
