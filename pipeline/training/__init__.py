"""Training on built data sets: identity and attribute embeddings, and their joint fusion."""
