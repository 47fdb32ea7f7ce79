// Elementary functions that a compiler can vectorise: arithmetic and bit operations only, no branches, no tables.
//
// One text serves float and double; `Real` holds what differs.  The polynomials are plain Taylor series (but for the
// tail of erf, and the sine), long enough that their truncation is below the rounding error.  Errors measured against
// long double: at most 2 units in the last place (2.2 without fused multiply-add), of cospi and sinpi 2.6 (3.1), see
// tests/backends/test_native_math.py.  NaN, infinities, overflow and gradual underflow are as in libm.  This text is
// put in front of every kernel; it must not include a header.  At its end is what compilers do not find themselves:
// AVX-512's approximate root.

template <class F> struct Real;

template <> struct Real<float> {
    typedef int Int;
    typedef unsigned Bits;
    static constexpr int mantissa = 23, bias = 127, exp_terms = 7, log_terms = 6;
    static constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    static constexpr float ln2_hi = 0x1.62e3p-1f, ln2_lo = 0x1.2fefa2p-17f;  // n * ln2_hi is exact
    static constexpr float exp_low = -104.0f, exp_high = 89.0f, one_minus = -20.0f;
    static constexpr float smallest = 0x1p-126f, tiny = 0x1p-30f, tanh_high = 10.0f;
};

template <> struct Real<double> {
    typedef long long Int;
    typedef unsigned long long Bits;
    static constexpr int mantissa = 52, bias = 1023, exp_terms = 13, log_terms = 12;
    static constexpr double round = 6755399441055744.0;
    static constexpr double ln2_hi = 0x1.62e42feep-1, ln2_lo = 0x1.a39ef35793c76p-33;
    static constexpr double exp_low = -746.0, exp_high = 710.0, one_minus = -40.0;
    static constexpr double smallest = 0x1p-1022, tiny = 0x1p-60, tanh_high = 20.0;
};

template <class F> static inline typename Real<F>::Bits bits_of(F x) {
    typename Real<F>::Bits u;
    __builtin_memcpy(&u, &x, sizeof u);
    return u;
}

template <class F> static inline F from_bits(typename Real<F>::Bits u) {
    F x;
    __builtin_memcpy(&x, &u, sizeof x);
    return x;
}

// x = n ln2 + r with |r| <= ln2 / 2; returns n.  For NaN, r is NaN.
template <class F> static inline typename Real<F>::Int split_exponent(F x, F &r) {
    typedef Real<F> R;
    F shifted = x * F(1.44269504088896340736) + R::round;
    F n = shifted - R::round;
    r = (x - n * R::ln2_hi) - n * R::ln2_lo;
    return (typename R::Int)(bits_of(shifted) - bits_of(F(R::round)));
}

// (e^r - 1 - r) / r^2 = 1/2! + r/3! + r^2/4! + ...
template <class F> static inline F exp_series(F r) {
    if constexpr (sizeof(F) == 4) {
        F p = F(1.0 / 5040);
        p = p * r + F(1.0 / 720);
        p = p * r + F(1.0 / 120);
        p = p * r + F(1.0 / 24);
        p = p * r + F(1.0 / 6);
        return p * r + F(0.5);
    } else {
        F p = F(1.0 / 6227020800.0);
        p = p * r + F(1.0 / 479001600.0);
        p = p * r + F(1.0 / 39916800.0);
        p = p * r + F(1.0 / 3628800.0);
        p = p * r + F(1.0 / 362880);
        p = p * r + F(1.0 / 40320);
        p = p * r + F(1.0 / 5040);
        p = p * r + F(1.0 / 720);
        p = p * r + F(1.0 / 120);
        p = p * r + F(1.0 / 24);
        p = p * r + F(1.0 / 6);
        return p * r + F(0.5);
    }
}

template <class F> static inline F exp_of(F x) {
    typedef Real<F> R;
    typedef typename R::Bits Bits;
    x = x < R::exp_low ? R::exp_low : x;  // written so that NaN stays
    x = x > R::exp_high ? R::exp_high : x;
    F r;
    Bits n = (Bits)split_exponent(x, r);
    F e = (exp_series(r) * r * r + r) + F(1);
    // 2^n as a product of two powers, because n may lie beyond the exponents of normal numbers
    Bits half = ((n + 2 * (R::bias + 1)) >> 1) - (R::bias + 1);
    F first = from_bits<F>((half + R::bias) << R::mantissa);
    F second = from_bits<F>((n - half + R::bias) << R::mantissa);
    return e * first * second;
}

template <class F> static inline F expm1_of(F x) {
    typedef Real<F> R;
    typedef typename R::Bits Bits;
    F y = x < R::one_minus ? R::one_minus : x;
    y = y > R::exp_high ? R::exp_high : y;
    F r;
    Bits n = (Bits)split_exponent(y, r);
    F q = exp_series(r) * r * r + r;
    F scale = from_bits<F>((n - 1 + R::bias) << R::mantissa);  // 2^(n-1): 2^n itself may overflow
    F value = F(2) * (scale * q + (scale - F(0.5)));
    return (x < F(0) ? -x : x) < R::tiny ? x : value;
}

template <class F> static inline F tanh_of(F x) {
    typedef Real<F> R;
    F a = x < F(0) ? -x : x;
    F b = a > R::tanh_high ? R::tanh_high : a;
    F e = expm1_of(b + b);
    F t = e / (e + F(2));
    t = a < F(0.35) ? F(0.5) * e - F(0.5) * e * t : t;  // the same, with less rounding
    t = a < R::tiny ? a : t;
    const typename R::Bits sign = (typename R::Bits)1 << (8 * sizeof(F) - 1);
    return from_bits<F>((bits_of(t) & ~sign) | (bits_of(x) & sign));
}

// log(u + rest), where |rest| is at most a rounding error of u
template <class F> static inline F log_sum(F u, F rest) {
    typedef Real<F> R;
    typedef typename R::Bits Bits;
    bool subnormal = u < R::smallest;
    F big = subnormal ? u * F((Bits)1 << R::mantissa) : u;
    // mantissa in [sqrt(1/2), sqrt(2)): take the exponent after moving the boundary from 1 to sqrt(1/2)
    const Bits root_half = bits_of(F(0.70710678118654752440));
    Bits moved = bits_of(big) - root_half;
    // exponent as a float by the rounding trick, offset to stay positive: no conversion of 64-bit integers needed
    Bits biased = (moved + ((Bits)(R::bias + 1) << R::mantissa)) >> R::mantissa;
    F e = from_bits<F>(bits_of(F(R::round)) + biased) - F(R::round) - F(R::bias + 1);
    e = subnormal ? e - F(R::mantissa) : e;
    F m = from_bits<F>((moved & (((Bits)1 << R::mantissa) - 1)) + root_half);
    F f = m - F(1);
    F s = f / (F(2) + f);
    F z = s * s;
    F p;  // log((1+s)/(1-s)) = 2 s + 2 s^3/3 + 2 s^5/5 + ...
    if constexpr (sizeof(F) == 4) {
        p = F(2.0 / 11);
        p = p * z + F(2.0 / 9);
    } else {
        p = F(2.0 / 23);
        p = p * z + F(2.0 / 21);
        p = p * z + F(2.0 / 19);
        p = p * z + F(2.0 / 17);
        p = p * z + F(2.0 / 15);
        p = p * z + F(2.0 / 13);
        p = p * z + F(2.0 / 11);
        p = p * z + F(2.0 / 9);
    }
    p = p * z + F(2.0 / 7);
    p = p * z + F(2.0 / 5);
    p = p * z + F(2.0 / 3);
    p = p * z;
    F half = F(0.5) * f * f;
    F low = s * (half + p) + (e * R::ln2_lo + rest / u);
    F value = e * R::ln2_hi - ((half - low) - f);
    value = u == F(0) ? -F(__builtin_inf()) : value;
    value = u < F(0) ? F(__builtin_nan("")) : value;
    return u < F(__builtin_inf()) ? value : u;  // infinity and NaN
}

template <class F> static inline F log1p_of(F x) {
    F u = F(1) + x;
    F b = u - F(1);
    F rest = (F(1) - (u - b)) + (x - b);  // exactly 1 + x - u
    F value = log_sum(u, rest);
    return (x < F(0) ? -x : x) < Real<F>::tiny ? x : value;
}

// coefficient of x^(2 n + 1) in erf(x)
static constexpr double erf_term(int n) {
    double factorial = 1;
    for (int i = 2; i <= n; ++i) factorial *= i;
    return (n % 2 ? -1.12837916709551257390 : 1.12837916709551257390) / (factorial * (2 * n + 1));
}

// e^(x^2) erfc(x) as a polynomial in (x - 2) / (x + 2), interpolated at Chebyshev points; error times e^(-x^2) at most
// 2e-10 for 0.75 <= x <= 4 (first) and 4e-18 for 1 <= x <= 6 (second)
static constexpr double erf_tail_float[] = {
    0.2553956762, -0.4271858508, 0.2416582181, -0.07897831756, 0.003731911903, 0.006991569639, -0.0008349531006,
    -0.0009289848279};
static constexpr double erf_tail_double[] = {
    0.25539567631050572, -0.427185847413957513, 0.241658194242485111, -0.078978581015931002, 0.00373289240206995794,
    0.00699746175306367131, -0.000847143150591399486, -0.000981977486007498917, 0.0000435535172521869681,
    0.000174369548645960032, 0.0000275470279701345785, -0.0000276667573849747893, -0.0000140678693065326198,
    1.87655020502721434e-6, 3.86804296854299923e-6};

template <class F> static inline F erf_of(F x) {
    constexpr bool single = sizeof(F) == 4;
    F a = x < F(0) ? -x : x, z = x * x, near = 0, tail = 0;
#pragma GCC unroll 18
    for (int n = single ? 8 : 17; n >= 0; --n) near = near * z + F(erf_term(n) - (n == 0));
    near = near * a + a;  // the leading coefficient less 1: rounding errors are those of a small number
    F b = a > F(single ? 4 : 6) ? F(single ? 4 : 6) : a;
    F t = (b - F(2)) / (b + F(2));
#pragma GCC unroll 15
    for (int n = single ? 7 : 14; n >= 0; --n) tail = tail * t + F(single ? erf_tail_float[n] : erf_tail_double[n]);
    F far = F(1) - exp_of(-b * b) * tail;
    const typename Real<F>::Bits sign = (typename Real<F>::Bits)1 << (8 * sizeof(F) - 1);
    F value = a < F(single ? 0.75 : 1) ? near : far;
    return from_bits<F>((bits_of(value) & ~sign) | (bits_of(x) & sign));
}

// (sin(pi y) / y - pi) / y^2 as a polynomial in z = y^2, interpolated at Chebyshev points of |y| <= 1/2: the error of
// sin(pi y) is at most 1.1e-10 (float) and 1.4e-18 (double) of it.  Without a loop, which would keep compilers from
// vectorising loops around it.
template <class F> static inline F sinpi_series(F z) {
    if constexpr (sizeof(F) == 4) {
        F p = F(-0.0070844887789561075666);
        p = p * z + F(0.082083717762861436642);
        p = p * z + F(-0.59925899373367544023);
        p = p * z + F(2.5501638671048268569);
        return p * z + F(-5.1677127791863117527);
    } else {
        F p = F(7.7257430307898758766e-7);
        p = p * z + F(-0.000021906201655131957992);
        p = p * z + F(0.00046630087411496363204);
        p = p * z + F(-0.007370430719634586526);
        p = p * z + F(0.082145886596752321938);
        p = p * z + F(-0.59926452932034303476);
        p = p * z + F(2.5501640398773400994);
        return p * z + F(-5.1677127800499700188);
    }
}

// sin(pi y) for |y| <= 1/2
template <class F> static inline F sinpi_near(F y) {
    const F rest = F(sizeof(F) == 4 ? -8.74227800037e-8 : 1.2246467991473531772e-16);  // pi - F(pi)
    return y * F(3.14159265358979323846) + y * (sinpi_series(y * y) * y * y + rest);
}

// |x| - 2 n in [-1, 1], exactly; the second time is for large numbers, whose half is not rounded to the nearest integer
template <class F> static inline F part_of_turn(F x) {
    const typename Real<F>::Bits sign = (typename Real<F>::Bits)1 << (8 * sizeof(F) - 1);
    x = from_bits<F>(bits_of(x) & ~sign);
    x = x - F(2) * ((x * F(0.5) + Real<F>::round) - Real<F>::round);
    return x - F(2) * ((x * F(0.5) + Real<F>::round) - Real<F>::round);
}

template <class F> static inline F cospi_of(F x) {
    F t = part_of_turn(x);
    return sinpi_near(F(0.5) - (t < F(0) ? -t : t));
}

template <class F> static inline F sinpi_of(F x) {
    F t = part_of_turn(x), a = t < F(0) ? -t : t;
    F value = sinpi_near(a > F(0.5) ? F(1) - a : a);
    const typename Real<F>::Bits sign = (typename Real<F>::Bits)1 << (8 * sizeof(F) - 1);
    return from_bits<F>(bits_of(value) ^ ((bits_of(t) ^ bits_of(x)) & sign));
}

static inline float sqrt(float x) { return __builtin_sqrtf(x); }
static inline double sqrt(double x) { return __builtin_sqrt(x); }
static inline float rsqrt(float x) { return 1.0f / sqrt(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float fabs(float x) { return __builtin_fabsf(x); }
static inline double fabs(double x) { return __builtin_fabs(x); }
static inline float exp(float x) { return exp_of(x); }
static inline double exp(double x) { return exp_of(x); }
static inline float expm1(float x) { return expm1_of(x); }
static inline double expm1(double x) { return expm1_of(x); }
static inline float tanh(float x) { return tanh_of(x); }
static inline double tanh(double x) { return tanh_of(x); }
static inline float log(float x) { return log_sum(x, 0.0f); }
static inline double log(double x) { return log_sum(x, 0.0); }
static inline float log1p(float x) { return log1p_of(x); }
static inline double log1p(double x) { return log1p_of(x); }
static inline float erf(float x) { return erf_of(x); }
static inline double erf(double x) { return erf_of(x); }
static inline float cospi(float x) { return cospi_of(x); }
static inline double cospi(double x) { return cospi_of(x); }
static inline float sinpi(float x) { return sinpi_of(x); }
static inline double sinpi(double x) { return sinpi_of(x); }

// A vector that can be used like a number, for the loops that `GPUMLP_LANES` enables
#if defined(__AVX512F__)
#define GPUMLP_LANES
template <class F> struct VectorOf;
template <> struct VectorOf<float> { typedef float type __attribute__((vector_size(64))); };
template <> struct VectorOf<double> { typedef double type __attribute__((vector_size(64))); };
template <class F> struct Lanes {
    typedef typename VectorOf<F>::type Vector;
    Vector v;
    Lanes() = default;
    Lanes(Vector x) : v(x) {}
    Lanes(F x) : v(Vector{} + x) {}
    Lanes operator-() const { return -v; }
    friend Lanes operator+(Lanes a, Lanes b) { return a.v + b.v; }
    friend Lanes operator-(Lanes a, Lanes b) { return a.v - b.v; }
    friend Lanes operator*(Lanes a, Lanes b) { return a.v * b.v; }
    friend Lanes operator/(Lanes a, Lanes b) { return a.v / b.v; }
    Lanes &operator+=(Lanes b) { return *this = *this + b; }
    Lanes &operator-=(Lanes b) { return *this = *this - b; }
    Lanes &operator*=(Lanes b) { return *this = *this * b; }
    Lanes &operator/=(Lanes b) { return *this = *this / b; }
};

// what rsqrt14 gives for 0 and infinity stays: Newton's step makes NaN of it
static constexpr int keep_limits = 0x110100;

static inline Lanes<float> rsqrt(Lanes<float> given) {  // to 14 bits, and Newton's step, which doubles them
    typedef Lanes<float>::Vector Vector;
    typedef int Classes __attribute__((vector_size(64)));
    const Vector x = given.v, first = (Vector)__builtin_ia32_rsqrt14ps512_mask(x, x, (unsigned short)-1);
    const Vector y = first + 0.5f * first * (1.0f - x * first * first);
    return (Vector)__builtin_ia32_fixupimmps512_mask(y, first, Classes{} + keep_limits, 0, (unsigned short)-1, 4);
}

static inline Lanes<double> rsqrt(Lanes<double> given) {
    typedef Lanes<double>::Vector Vector;
    typedef long long Classes __attribute__((vector_size(64)));
    const Vector x = given.v, first = (Vector)__builtin_ia32_rsqrt14pd512_mask(x, x, (unsigned char)-1);
    Vector y = first;
    for (int i = 0; i < 2; ++i) y = y + 0.5 * y * (1.0 - x * y * y);
    return (Vector)__builtin_ia32_fixupimmpd512_mask(y, first, Classes{} + keep_limits, 0, (unsigned char)-1, 4);
}
#endif
