"""Look into trained networks: similarity of attention maps and of tokens, Grad-CAM, drawings."""
