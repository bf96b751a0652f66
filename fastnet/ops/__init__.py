"""The reference: one file is one op, a forward/backward pair on plain arrays. The folder is the list of ops.

    forward(*arrays, **options) -> (y, cache)
    backward(dy, cache, needs=None) -> one gradient per array, in the same order

`needs` is None (every gradient) or one bool per array; a gradient that is not needed, and that of an integer
or absent array, is None. Nothing passed in is modified. `y` and `dx` have x's floating type, a parameter's
gradient the parameter's. The forward passes accept complex128 too, which `fastnet.check` differentiates with.

Numbers that are no ordinary ones, in every implementation:

    not finite  A NaN in x makes NaN of the entries of y that it is a part of, and of no others; what is dropped or
                passed over by a stride is no part. An infinity goes through as IEEE arithmetic has it. Of gradients no
                more is promised than that those of other samples stay as they are, where the op treats samples apart:
                a term 0 * NaN may be summed or left out, and the gradient at an x that is not finite may be NaN or
                what the formula's limit is.
    huge        The losses are finite, and exact, for all finite logits whose loss a float can hold: nothing is raised
                to a power before the largest is taken off. Batch normalisation gives beta where the variance of its
                channel overflows (from 1e19 on in float32).
    denormal    They are numbers like others: nothing is flushed to zero, not by compiled kernels either.
    no variance Batch normalisation gives beta for a channel that is constant, or has one entry alone; the rest is its
                rounding times 1/sqrt(eps).
    no samples  An op that treats samples apart gives an empty y, and zeros as gradients of parameters; one that needs a
                mean over samples, a loss or batch normalisation, raises ValueError.
"""
