"""Runs in the gateway pod: keeps the router `smg` fed with replicas, ready and drained. No token passes through it."""
