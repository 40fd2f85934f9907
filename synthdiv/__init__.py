"""synthdiv: what the diversity of synthetic data does to a language model that is fine-tuned on it."""

__version__ = "0.1.0"
