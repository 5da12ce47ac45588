"""The alternatives, each as its documentation recommends; they run in their own venv."""
