"""A lesion detector trained from different starts, and the comparison of them."""
