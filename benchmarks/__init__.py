"""Benchmarks: the program beside its alternatives, and single parts under load."""
