"""One file per act. Each reads from top to bottom like its paper's algorithm."""
