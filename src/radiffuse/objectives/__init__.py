"""What is learned: one objective a file, to be read beside its paper."""
