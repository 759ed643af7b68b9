"""The load test: streams chat completions at a given rate or concurrency and reports what clients would feel."""
