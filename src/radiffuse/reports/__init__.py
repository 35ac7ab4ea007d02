"""What was measured, as figures, self-contained HTML pages and the tables of the documentation."""
