"""What lies on disk: catalogues of faces and paintings, shards, runs, and the torch data loader."""
