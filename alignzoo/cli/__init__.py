"""The command line. Every command is a module of its own, imported when it is asked for; none imports torch to start.

Data goes to stdout, everything else to stderr.
"""
