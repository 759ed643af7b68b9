"""Which nodes a gang takes: whole free nodes of one fabric domain, all of them or none. Pure."""
