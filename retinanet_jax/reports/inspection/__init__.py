"""A look before training: what the data hold, what the network sees of it, what anchors cover."""
