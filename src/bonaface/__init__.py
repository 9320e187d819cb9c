"""Trains, tests, compares and runs deepfake detectors for face images."""

__version__ = "0.1.0"
