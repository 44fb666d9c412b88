"""A course on convolutional networks: the machinery that its notebooks share."""
