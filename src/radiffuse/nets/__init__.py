"""Networks: the U-Net in two and three dimensions, what is built on it, and its files."""
