"""Thin adapters to the libraries that people use. Each needs that library (an extra of m3index)."""
