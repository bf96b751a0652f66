"""The reference: one file is one op, a forward/backward pair on plain arrays. The folder is the list of ops.

    forward(*arrays, **options) -> (y, cache)
    backward(dy, cache, needs=None) -> one gradient per array, in the same order

`needs` is None (every gradient) or one bool per array; a gradient that is not needed, and that of an integer
or absent array, is None. Nothing passed in is modified. `y` and `dx` have x's floating type, a parameter's
gradient the parameter's. The forward passes accept complex128 too, which `fastnet.check` differentiates with.
"""
