"""How good a model is: figures with intervals over groups, where they hold, and a report to read."""
