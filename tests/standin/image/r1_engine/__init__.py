"""In the stand-in's pods this package shadows the engine's, by PYTHONPATH: the pod's command stays what it is."""
