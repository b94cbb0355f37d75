"""HuBERT's targets: k-means units of frames, where they lie on disk, and how good they are."""
