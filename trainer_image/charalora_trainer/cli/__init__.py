"""The command line `charalora`. Commands import what is heavy when they run, so that help and checks come at once."""
