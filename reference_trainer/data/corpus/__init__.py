"""Text and tokens on the disk: what is read, how it is tokenized, split, written as shards and checked. No PyTorch."""
