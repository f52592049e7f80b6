"""The command line, one file a command."""

from sonoloop.cli.app import main

__all__ = ["main"]
