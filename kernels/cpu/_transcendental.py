"""exp, expm1, tanh, log1p and the normal distribution's tail for loops that LLVM turns into vector instructions.

A call of the C library's functions keeps a loop scalar. These are straight lines of arithmetic without a branch: each
takes a float32 or float64 and returns the same type. Products are added with `fma`, which rounds once wherever the
entry falls, in the body of a vector loop or in its tail; so the bits do not depend on how a loop is split.

    exp(x)    = 2^n exp(r)                     n = x / ln 2 to the nearest whole number, r = x - n ln 2
    expm1(x)  = 2^n expm1(r) + (2^n - 1)       2^n - 1 is exact where it matters
    tanh(x)   = -m / (2 + m)                   m = expm1(-2 |x|), and the sign of x
    log1p(u)  = 2 artanh(u / (2 + u))
    gauss(x)  = exp(-x^2 / 2)
    mills(a)  = P(t) / (a + 4)                 P fitted, t = (a - 4) / (a + 4); gauss mills is the tail up to a factor

exp(r), expm1(r) and artanh are Taylor series up to the last term that shows: |r| is at most ln(2) / 2, and u / (2 + u)
at most 1/3. ln 2 is split so that n times its first part is exact. NaN comes out as NaN.

Sources: Cody & Waite, "Software manual for the elementary functions", 1980, for the split; Shepherd & Laframboise,
"Chebyshev approximation of (1 + 2x) exp(x^2) erfc x in 0 <= x < infinity", 1981, for the variable t.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LN2_LOW = 2.3190468138462995584e-17  # ln 2 = math.log(2) + LN2_LOW
MILLS_CENTRE = 4


class _Format(NamedTuple):
    """What depends on the width of the numbers. Series have the highest power first."""

    mantissa: int  # its bits
    bias: int  # of the exponent
    zero: float  # exp is 0 from here down
    minus_one: float  # expm1 is -1 from here down
    ln2_bits: int  # of the first part of ln 2: as many as leave room for n
    exp_degree: int
    artanh_terms: int  # behind the first
    mills: tuple[float, ...]


SINGLE = _Format(23, 127, -104.0, -20.0, 16, 7, 7, (
    -0.00013196307, -0.00058810954, 0.00042451118, 0.004126651, -0.0087433085, -0.018913183,
    0.15139356, -0.46753958, 0.9704095, -1.5237709, 1.8932191,
))
DOUBLE = _Format(52, 1023, -746.0, -40.0, 42, 13, 16, (
    -1.8204186839012962e-09, -6.321965812548697e-09, 4.8084074178427225e-09, 4.9179071322331327e-08,
    3.3290023243328895e-08, -2.1408715584347108e-07, -3.8843944358703274e-07, 6.813129191331315e-07,
    2.5606562336991967e-06, -1.578415203191687e-06, -1.4839673842188331e-05, 1.79641607252298e-06,
    8.809466376348825e-05, -4.783294660704456e-06, -0.000579269098619784, 0.0003342446237472474,
    0.004087855656581956, -0.008722295275126468, -0.018900450860058083, 0.15139176231249032,
    -0.4675409629983842, 0.9704095548675874, -1.523770910819983, 1.8932190633084853,
))


class _Number:
    """A number of the code that is generated, with the operators of its arithmetic."""

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self._builder, self.value = builder, value
        self.format = {ir.FloatType(): SINGLE, ir.DoubleType(): DOUBLE}[value.type]

    def like(self, number: "float | _Number") -> "_Number":
        """A constant of the same type; what is a number of the code already stays as it is."""
        if isinstance(number, _Number):
            return number
        return _Number(self._builder, ir.Constant(self.value.type, float(number)))

    def __add__(self, other: "float | _Number") -> "_Number":
        return self._number(self._builder.fadd(self.value, self.like(other).value))

    def __sub__(self, other: "float | _Number") -> "_Number":
        return self._number(self._builder.fsub(self.value, self.like(other).value))

    def __mul__(self, other: "float | _Number") -> "_Number":
        return self._number(self._builder.fmul(self.value, self.like(other).value))

    def __truediv__(self, other: "float | _Number") -> "_Number":
        return self._number(self._builder.fdiv(self.value, self.like(other).value))

    def __neg__(self) -> "_Number":
        return self * -1.0

    def __abs__(self) -> "_Number":
        return self._call("fabs")

    def fma(self, factor: "float | _Number", term: "float | _Number") -> "_Number":
        """self factor + term, rounded once."""
        return self._call("fma", self.like(factor), self.like(term))

    def with_sign_of(self, other: "_Number") -> "_Number":
        return self._call("copysign", other)

    def at_least(self, bound: float) -> "_Number":
        """The larger of the two; NaN stays."""
        low = self.like(bound).value
        below = self._builder.fcmp_ordered("<", self.value, low)
        return self._number(self._builder.select(below, low, self.value))

    def polynomial(self, coefficients: Sequence[float]) -> "_Number":
        total = self.like(coefficients[0])
        for coefficient in coefficients[1:]:
            total = total.fma(self, coefficient)
        return total

    def powers_of_two(self, parts: int) -> list["_Number"]:
        """Powers of two, so many as `parts` (1 or 2), whose product is 2^(k - parts bias).

        The number is 1.5 * 2^mantissa + k: the whole number k stands in its lower bits.
        """
        builder, form = self._builder, self.format
        bits = builder.bitcast(self.value, ir.IntType({SINGLE: 32, DOUBLE: 64}[form]))
        half = builder.lshr(bits, bits.type(1))
        exponents = [bits] if parts == 1 else [builder.sub(bits, half), half]
        # What is above the exponent is shifted out.
        return [self._number(builder.bitcast(builder.shl(e, bits.type(form.mantissa)), self.value.type))
                for e in exponents]

    def _number(self, value: ir.Value) -> "_Number":
        return _Number(self._builder, value)

    def _call(self, name: str, *others: "_Number") -> "_Number":
        kind, values = self.value.type, [self.value, *(other.value for other in others)]
        function = cgutils.get_or_insert_function(
            self._builder.module, ir.FunctionType(kind, [kind] * len(values)), f"llvm.{name}.{kind.intrinsic_name}")
        return self._number(self._builder.call(function, values))


def _reduced(x: _Number, whole: int) -> tuple[_Number, _Number]:
    """(1.5 * 2^mantissa + whole + n, r): neighbours are 1 apart there, so the sum is rounded to n."""
    magic = 1.5 * 2.0**x.format.mantissa + whole
    shifted = x.fma(1 / math.log(2), magic)
    n = shifted - magic
    unit = 2.0**x.format.ln2_bits
    high = math.floor(math.log(2) * unit) / unit
    return shifted, n.fma(high - math.log(2) - LN2_LOW, n.fma(-high, x))


def _compiled(write: Callable[[_Number], _Number]) -> Any:
    """`write` as a function for compiled kernels."""
    def typed(typing, x):
        if not isinstance(x, types.Float):
            return None
        return x(x), lambda context, builder, signature, values: write(_Number(builder, values[0])).value

    typed.__name__, typed.__doc__ = write.__name__, write.__doc__
    return intrinsic(typed)


def _expm1(x: _Number) -> _Number:
    form = x.format
    shifted, r = _reduced(x.at_least(form.minus_one), form.bias)
    (power,) = shifted.powers_of_two(1)
    series = (r * r).fma(r.polynomial([1 / math.factorial(k) for k in range(form.exp_degree, 1, -1)]), r)
    return power.fma(series, power - 1)


def _exp(x: _Number) -> _Number:
    form = x.format
    shifted, r = _reduced(x.at_least(form.zero), 2 * form.bias)
    large, small = shifted.powers_of_two(2)
    return r.polynomial([1 / math.factorial(k) for k in range(form.exp_degree, -1, -1)]) * large * small


@_compiled
def exp(x):
    """exp(x) for x <= 0, also where the result is subnormal."""
    return _exp(x)


@_compiled
def expm1(x):
    """exp(x) - 1 for x <= 0."""
    return _expm1(x)


@_compiled
def tanh(x):
    """tanh(x) for any x."""
    m = _expm1(abs(x) * -2)
    below = m + 2
    lost = m - (below - 2)
    inverse = m.like(1) / below
    quotient = m * inverse
    # A step of the division, which sees what the sum lost: without it the errors add up to 2.5 units.
    left = quotient.fma(-below, m) - quotient * lost
    return left.fma(inverse, quotient).with_sign_of(x)


@_compiled
def log1p(u):
    """log(1 + u) for u in 0..1."""
    d = (u + u) / (u + 2)  # twice what artanh is taken of, hence the powers of 4
    terms = [1 / ((2 * k + 1) * 4**k) for k in range(u.format.artanh_terms, 0, -1)]
    square = d * d
    return (d * square).fma(square.polynomial(terms), d)


@_compiled
def gauss(x):
    """exp(-x^2 / 2) for |x| up to 40. What is lost when x^2 is rounded would be many units of a small result."""
    square = x * x
    e = _exp(square * -0.5)
    return e.fma(x.fma(x, -square) * -0.5, e)


@_compiled
def mills(a):
    """(1 - Phi(a)) / phi(a), distribution and density of the normal distribution, for a in 0..40."""
    w = a.like(1) / (a + MILLS_CENTRE)
    return a.fma(w + w, -1).polynomial(a.format.mills) * w
