"""Self-contained HTML pages: `inspection` of the data before training, `analysis` after it."""
