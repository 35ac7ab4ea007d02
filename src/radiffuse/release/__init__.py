"""The way out: a segmenter as an object, published folders, and other programs' formats."""
