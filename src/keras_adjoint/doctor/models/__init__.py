"""The doctor on models: `context.py` collects what the rules need, and each file of rules searches that."""
