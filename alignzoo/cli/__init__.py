"""The command line. Each command is a module, imported on first use; none imports torch at startup.

Data goes to stdout, everything else to stderr.
"""
