"""Which version of Charalora this is, and what to say where an operator and a trainer of two versions meet."""

from importlib.metadata import version

VERSION = version("charalora")

OPERATOR_VERSION = "CHARALORA_OPERATOR_VERSION"
"""Environment variable of a pod: the version of the operator that made it."""


def beside(operator: str) -> str:
    """What to know where this program works for an operator of another version; empty where both are the same, or nobody says."""
    if operator in {"", VERSION}:
        return ""
    return f"This image has version {VERSION} and the operator that started it {operator}; give both the same one."
