"""One step of an exponential moving average of the weights, in place.

    a = a + (1 - decay) (w - a)

Source: Polyak & Juditsky, "Acceleration of stochastic approximation by averaging", 1992; the exponential form as in
Tarvainen & Valpola, "Mean teachers are better role models", 2017, section 2.
"""


def run(average, w, *, decay):
    """Move `average` towards w, vectors of one length. Returns nothing."""
    average += (1 - decay) * (w - average)
