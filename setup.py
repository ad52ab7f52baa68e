"""Builds tfflows; its metadata are in pyproject.toml."""

from setuptools import setup

setup()
