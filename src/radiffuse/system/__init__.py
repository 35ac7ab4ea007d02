"""What the machine gives: files, processes, packages."""
