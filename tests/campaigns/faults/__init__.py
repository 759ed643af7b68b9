"""Every kind of fault in a row under users who never pause: `make faults`. The table is docs/faults.md."""
