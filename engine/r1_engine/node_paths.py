"""Names of files in a pod's run directory that more than one of its processes uses."""

AGENT_SOCKET = "actor.sock"
GATE_FILE = "gate"
