"""Packaged weights: `shapes_tiny.safetensors`, backbone and FPN pre-trained on shapes (recipe `pretrain_shapes`)."""
