"""The language world: causal language models of transformers, taught token by token."""
