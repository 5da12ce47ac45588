"""What one would pick instead, each as its own documentation has it; they run in a venv of their own."""
