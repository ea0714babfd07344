"""Figures and tables of the analyses."""
