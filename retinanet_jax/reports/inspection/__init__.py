"""The page about a dataset before training: findings, images, objects, anchors."""
