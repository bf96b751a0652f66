def read(data_dir=None, *, download=True):
    raise NotImplementedError
