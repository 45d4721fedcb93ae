"""Foundations that every other room builds on: types, errors, keys, arrays, files, parallelism and checkpoints.

Its modules are imported by name; importing this package alone imports none of them.
"""
