"""The stages of a run, each a function that can be run alone."""
