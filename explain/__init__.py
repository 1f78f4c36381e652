"""Look into trained networks: likeness of attention maps and of tokens, Grad-CAM, drawings."""
