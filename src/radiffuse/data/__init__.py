"""Files -> cases -> plan -> prepared arrays -> batches; augmentation; procedural anatomy."""
