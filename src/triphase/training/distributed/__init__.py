"""Several processes that train one model: the only folder that imports torch.distributed."""
