"""Unsupervised body part regression on CT: every axial slice gets its place in the body."""
