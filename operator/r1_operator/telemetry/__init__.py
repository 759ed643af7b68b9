"""What the operator measures: engines and gateways by HTTP, and its own metrics, logs and health."""
