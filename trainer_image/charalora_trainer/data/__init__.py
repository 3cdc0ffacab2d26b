"""The data set: pictures, captions, sizes, and the order in which training sees them."""
