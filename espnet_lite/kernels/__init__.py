"""C++ for a few products that torch has no fast kernel for, each beside the same in plain torch."""
