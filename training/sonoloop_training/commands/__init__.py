"""What ``python -m sonoloop_training`` can do, one file a command.

Each has ``HELP``, ``add_arguments(parser)`` and ``run(options)``, which gives events.
"""
