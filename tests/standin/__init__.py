"""A light stand-in for an engine pod, for tests of the operator where the engine is not the point.

It speaks the engine pod's seam of docs/design/contracts.md (agent, OpenAI API, /v1/loads, /metrics, exit codes,
termination log) over a simple model of load. It proves nothing about the main path: that runs on Ray and SGLang.
"""
