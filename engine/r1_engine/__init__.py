"""What runs inside the engine pods: Ray, SGLang and their supervision."""
