"""Names of all diagnoses, and the module of each. Nothing is imported before it is asked for."""

DIAGNOSES: dict[str, str] = {}
