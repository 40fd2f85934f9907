"""`synthdiv measure`: the diversity measures alone, on any file of texts. `read` and `show` know no measure."""
