"""From examples to batches of fixed shape: order, augmentation, resizing, threads."""
