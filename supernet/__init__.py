"""Train all architectures at once: the search space, the weight-sharing supernet, and what it hands down."""
