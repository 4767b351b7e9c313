"""Adapters to other libraries. Each needs its library, an extra of m3index."""
