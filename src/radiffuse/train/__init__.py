"""The training loop, checkpoints and resume, averaging of weights, logs. Knows no method."""
