"""What goes wrong in models: each file finds one illness or a family of them, and `illnesses.py` is the table."""
