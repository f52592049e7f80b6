"""The formats in which masks and predictions leave and enter, one file a format."""
