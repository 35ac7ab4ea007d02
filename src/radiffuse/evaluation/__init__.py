"""Measuring masks: scores per case and class, tables, and the statistics of comparing them."""
