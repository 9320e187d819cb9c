"""The networks: each takes float32 (b, 3, size, size) and gives logits (b,)."""
