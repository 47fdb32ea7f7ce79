"""Trainings and pictures on public data."""
