"""Look-alikes: comparing embeddings across the real and the artistic domain."""
