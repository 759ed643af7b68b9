"""Long runs that no `make test` waits for: `python -m tests.campaigns.NAME`. Results: docs/measurements.md."""
