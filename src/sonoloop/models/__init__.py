"""Frames in, predictions out: specs, bundles and the predictor.

Importing this package imports no torch; its modules that need it do.
"""
