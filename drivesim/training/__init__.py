"""Training: one visible loop (`loop.py`) and one task per model; a task says what to learn, the loop how."""
