"""The Train panel, with what only it uses."""
