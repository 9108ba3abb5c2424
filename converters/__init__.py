"""Carry DeepLesion into COCO and a pretrained trunk into other frameworks."""
