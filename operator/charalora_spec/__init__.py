"""The contract that operator and trainer share: the resource, the outcomes of a run, the CRD."""
