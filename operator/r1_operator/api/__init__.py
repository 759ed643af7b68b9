"""The custom resource: frozen types, names, rules, and the CRD generated from them. Imports nothing that does I/O."""
