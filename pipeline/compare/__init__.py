"""Runs side by side: one page for people and two tables for programs."""
