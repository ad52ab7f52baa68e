"""Toy densities with known answers, and small real data that ships with the package."""
