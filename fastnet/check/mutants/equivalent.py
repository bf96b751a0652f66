"""Changes of the reference's source that no check of gradients can see, and why, for `source`.

(op, piece) -> reason: a survivor is known if the piece stands in its changed line (for a line left out: in the line),
at the end of which stands a $.
"""

AT_KINK = "differs at the kink alone, where there is no derivative; the tests of single values have the convention"
NAN = "differs for NaN alone, which has no derivative; the tests of pooling have its rule"
TYPE_OF_INDEX = "the type of the winner's index, which matters for windows of 256 entries or more"
NEAR_ONE = "differs for a p within 2^-31 of 1 alone"
REFUSES = "what is allowed at all; the tests of bad arguments have it"
MORE_NEEDS = "one more True, which nothing reads"
LONGER_SLICE = "an entry more, which is not read: height and width are taken in pairs"
ANY_NEGATIVE = "NumPy takes any negative size for the one to be worked out"

EQUIVALENT: dict[tuple[str, str], str] = {
    ("avg_pool2d", "xp.zeros((2, x.shape[1]"): "the weights are the same for every sample",
    ("batch_norm_add_relu", "(True,) * 5"): MORE_NEEDS,
    ("batch_norm_fixed", "if not any(needs_rest)"): "saves work; what it leaves out would be None too",
    ("batch_norm_fixed_add_relu", "(True,) * 7"): MORE_NEEDS,
    ("conv2d", "'stride', stride, 0"): REFUSES,
    ("conv2d", "'dilation', dilation, 0"): REFUSES,
    ("conv2d", "x.shape[1:4]"): LONGER_SLICE,
    ("conv2d", "w.shape[:3]"): LONGER_SLICE,
    ("conv2d", "a.reshape(-2,"): ANY_NEGATIVE,
    ("conv2d", "groups, -2)"): ANY_NEGATIVE,
    ("conv2d", "dy = dy.astype(precise"): "matters for 16 bits alone; the tests in 16 bits have it",
    ("dropout", "if x.size == 0:"): "an array without entries, which the tests of empty batches have",
    ("dropout", "if x.size == 1:"): "arrays with one entry or none, which have no share that is dropped",
    ("dropout", "2 ** 32 + 1"): NEAR_ONE,
    ("dropout", "min(round(p * 2 ** 32), 2 ** 32)"): NEAR_ONE,
    ("dropout", "2 ** 32 - 2"): NEAR_ONE,
    ("dropout", "2 ** 32 - 0"): NEAR_ONE,
    ("dropout", "3 ** 32 - 1"): NEAR_ONE,
    ("dropout", "2 ** 33 - 1"): NEAR_ONE,
    ("dropout", "words > threshold"): "one word in 2^32",
    ("elu", "precise.real >= 0"): AT_KINK,
    ("elu", "y >= 0"): AT_KINK,
    ("gelu", "precise.real >= LIMIT"): "the limit is put in place of itself",
    ("gelu", "precise.real <= -LIMIT"): "the limit is put in place of itself",
    ("huber", "residual.real <= 0"): "minus zero for zero",
    ("huber", "size.real >= delta"): "delta is put in place of itself",
    ("leaky_relu", "precise.real >= 0"): AT_KINK,
    ("leaky_relu", "y >= 0"): AT_KINK,
    ("max_pool2d", "best.real) | inside[at]"): NAN,
    ("max_pool2d", "| xp.isnan(patch) | inside"): NAN,
    ("max_pool2d", "& xp.isnan(best)"): NAN,
    ("max_pool2d", "~xp.isnan(best) | ~seen"): "what lies outside is minus infinity, and loses to what follows",
    ("max_pool2d", "xp.isnan(patch) & ~xp.isnan(best)$"): "differs where all of a window is minus infinity",
    ("max_pool2d", "dtype=xp.uint8)"): TYPE_OF_INDEX,
    ("max_pool2d", "dtype=xp.int32)"): TYPE_OF_INDEX,
    ("max_pool2d", "<= 256"): TYPE_OF_INDEX,
    ("max_pool2d", "> 256"): TYPE_OF_INDEX,
    ("max_pool2d", "< 257"): TYPE_OF_INDEX,
    ("max_pool2d", "< 0 else"): TYPE_OF_INDEX,
    ("max_pool2d", "patch.real >= best.real"): "differs where two entries are equal alone, at a kink",
    ("max_pool2d", "best, seen = (border[taps[1][1]]"): "the loop begins with the first tap, whatever stood there",
    ("max_pool2d", "xp.zeros_like(inside[taps[1][1]])"): "all taps have that shape",
    ("relu", "x.real < 0"): AT_KINK,
}
