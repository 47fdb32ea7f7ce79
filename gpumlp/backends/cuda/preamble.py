"""What stands ahead of the CUDA kernels: types of 16 bits, vectors of four, and the reductions of a row."""

from __future__ import annotations

__all__ = ["CTYPES", "HALF", "MEMBERS", "PACK", "TEAM"]

CTYPES = {
    "float32": "float",
    "float64": "double",
    "float16": "gpumlp_float16",
    "bfloat16": "gpumlp_bfloat16",
}
# 16 bits that become a float where they are read; parameters are declared as uint16
HALF = {
    "float16": """
#include <cuda_fp16.h>
struct gpumlp_float16 {
    unsigned short bits;
    gpumlp_float16() = default;
    __device__ __forceinline__ explicit gpumlp_float16(float x) {
        bits = __half_as_ushort(__float2half_rn(x));
    }
    __device__ __forceinline__ operator float() const { return __half2float(__ushort_as_half(bits)); }
    __device__ __forceinline__ void operator=(float x) { bits = gpumlp_float16(x).bits; }
};
""",
    "bfloat16": """
struct gpumlp_bfloat16 {
    unsigned short bits;
    gpumlp_bfloat16() = default;
    __device__ __forceinline__ explicit gpumlp_bfloat16(float x) {
        const unsigned u = __float_as_uint(x);  // to nearest, ties to even; NaN stays NaN
        bits = x != x ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16;
    }
    __device__ __forceinline__ operator float() const { return __uint_as_float((unsigned)bits << 16); }
    __device__ __forceinline__ void operator=(float x) { bits = gpumlp_bfloat16(x).bits; }
};
""",
}

PACK = """
template <typename S> struct alignas(4 * sizeof(S) < 16 ? 4 * sizeof(S) : 16) gpumlp_pack { S v[4]; };
"""

TEAM = """
#define TEAM_ {team}
#if TEAM_ > 32
#define LANES_ 32
#else
#define LANES_ TEAM_
#endif
#if defined(__HIPCC__) || defined(__HIP_DEVICE_COMPILE__)
#define SHUFFLE_(mask, v, offset) __shfl_xor(v, offset)
#else
#define SHUFFLE_(mask, v, offset) __shfl_xor_sync(mask, v, offset)
#endif
template <bool MAX> __device__ __forceinline__ C gpumlp_join(C a, C b) {{
    return MAX ? (b > a ? b : a) : a + b;
}}
// The same value in all threads of a row; the order depends on the number of columns only.
template <bool MAX> __device__ __forceinline__ C gpumlp_reduce(C v) {{
    const unsigned mask = (0xffffffffu >> (32 - LANES_)) << (threadIdx.x & 31 & ~(LANES_ - 1));
    #pragma unroll
    for (int offset = LANES_ / 2; offset > 0; offset >>= 1)
        v = gpumlp_join<MAX>(v, SHUFFLE_(mask, v, offset));
#if TEAM_ > 32
    __shared__ C part[TEAM_ / 32];
    __syncthreads();  // an earlier reduction's `part` has been read
    if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = v;
    __syncthreads();
    v = part[0];
    #pragma unroll
    for (int w = 1; w < TEAM_ / 32; ++w) v = gpumlp_join<MAX>(v, part[w]);
#endif
    return v;
}}
#define ROW_EACH for (long long c = lane_; c < cols_; c += TEAM_)
#define ROW_ONE if (lane_ == 0)
#define ROW_SUM(name, ...) C name = C(0); \\
    ROW_EACH {{ name += (__VA_ARGS__); }} name = gpumlp_reduce<false>(name);
#define ROW_SUM2(name, first, other, second) C name = C(0), other = C(0); \\
    ROW_EACH {{ name += (first); other += (second); }} \\
    name = gpumlp_reduce<false>(name); other = gpumlp_reduce<false>(other);
#define ROW_MAX(name, ...) C name = C(-1) / C(0); \\
    ROW_EACH {{ name = gpumlp_join<true>(name, (__VA_ARGS__)); }} name = gpumlp_reduce<true>(name);
"""

MEMBERS = """
// The same number.  In a sum of two products the compiler loses sight of how an address is aligned, and takes
// a store of four elements apart.
__device__ __forceinline__ long long gpumlp_opaque(long long x) {
#ifdef __CUDACC__
    asm("" : "+l"(x));
#endif
    return x;
}
"""
