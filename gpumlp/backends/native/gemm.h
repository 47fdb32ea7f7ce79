// Matrix products.
//
// Panels of `WIDTH` columns of op(b), zero-padded, times rows of op(a); sums run over k in order, whoever computes them.
#pragma once
#include "operations.h"

#if defined(__AVX512F__)
enum { VECTOR = 64, MAX_ROWS = 8 };
#elif defined(__AVX__)
enum { VECTOR = 32, MAX_ROWS = 6 };
#elif defined(__aarch64__)
enum { VECTOR = 16, MAX_ROWS = 8 };  // 32 registers; 16 sums keep four multipliers with a latency of four cycles busy
#else
enum { VECTOR = 16, MAX_ROWS = 4 };
#endif
enum { DEPTH = 288, FAR = 1024 };  // most rows of a packed panel; bytes

template <class F> struct IndexOf { typedef int type; };
template <> struct IndexOf<double> { typedef Long type; };

template <class F> struct Vec {
    typedef typename IndexOf<F>::type Index;
    typedef F type __attribute__((vector_size(VECTOR)));
    typedef F unaligned __attribute__((vector_size(VECTOR), aligned(sizeof(F)), may_alias));
    enum { lanes = VECTOR / sizeof(F) };
};

template <class F> struct Product {
    const F *a, *b;
    F *c;
    Long m, n, k, lda, ldb, ldc;
    bool trans_a, trans_b;
    Long a_row, a_col;      // element (i, p) of op(a) is a[i * a_row + p * a_col]
    Long c_row, c_col = 1;  // element (i, j) of c is c[i * c_row + j * c_col]
    const F *next;          // the block of b that comes next, to be fetched from memory meanwhile; or null
    Long next_rows, next_cols;
};

// R rows of op(a) times a panel of V vectors
template <class F, int R, int V>
static inline __attribute__((always_inline)) void
tile(const Product<F> &g, const F *a, const F *b, Long ldb, F *c, Long depth, Long width, bool add) {
    typedef typename Vec<F>::type Vector;
    typedef typename Vec<F>::unaligned Loose;
    enum { L = Vec<F>::lanes };
    const Long a_row = g.a_row, a_col = g.a_col;
    Vector sum[R][V] = {};
    for (Long p = 0; p < depth; ++p) {
        Vector right[V];
        for (int v = 0; v < V; ++v) right[v] = *(const Loose *)(b + p * ldb + v * L);
        for (int i = 0; i < R; ++i)
            for (int v = 0; v < V; ++v) sum[i][v] += a[i * a_row + p * a_col] * right[v];
    }
    for (int i = 0; i < R; ++i) {
        F *to = c + i * g.c_row;
        if (width == V * L && g.c_col == 1) {
            for (int v = 0; v < V; ++v) {
                Loose *out = (Loose *)(to + v * L);
                *out = add ? Vector(*out) + sum[i][v] : sum[i][v];
            }
        } else {
            F row[V * L] __attribute__((aligned(VECTOR)));
            for (int v = 0; v < V; ++v) *(Vector *)(row + v * L) = sum[i][v];
            for (Long j = 0; j < width; ++j) to[j * g.c_col] = add ? to[j * g.c_col] + row[j] : row[j];
        }
    }
}

template <class F, int R, int V>
static inline Long tiles(const Product<F> &g, Long i, const F *b, Long ldb, Long p0, Long depth, Long j, Long width) {
    for (; i + R <= g.m; i += R) {
        if (g.next)
            for (Long row = g.next_rows * i / g.m; row < g.next_rows * (i + R) / g.m; ++row)
                for (Long col = 0; col < g.next_cols; col += 64 / sizeof(F))
                    __builtin_prefetch(g.next + row * g.ldb + col, 0, 2);
        tile<F, R, V>(g, g.a + i * g.a_row + p0 * g.a_col, b, ldb, g.c + i * g.c_row + j * g.c_col, depth, width, p0 > 0);
    }
    return i;
}

template <class F, int V>
static void panel(const Product<F> &g, const F *b, Long ldb, Long p0, Long depth, Long j, Long width) {
    Long i = tiles<F, MAX_ROWS, V>(g, 0, b, ldb, p0, depth, j, width);
    i = tiles<F, 4, V>(g, i, b, ldb, p0, depth, j, width);
    i = tiles<F, 2, V>(g, i, b, ldb, p0, depth, j, width);
    tiles<F, 1, V>(g, i, b, ldb, p0, depth, j, width);
}

#if defined(__AVX512F__) && defined(__GNUC__) && !defined(__clang__)
// to[p * pitch + w] = from[w * ld + p] for one square of vectors: interleaving rows i and i + L/2, log2(L) times
template <class F> static inline void transpose_square(const F *from, Long ld, F *to, Long pitch) {
    enum { L = Vec<F>::lanes };
    typedef typename Vec<F>::type Vector;
    typedef typename Vec<F>::unaligned Loose;
    typedef typename Vec<F>::Index Index __attribute__((vector_size(VECTOR)));
    Index low, high;
    for (int i = 0; i < L; ++i) low[i] = i / 2 + i % 2 * L, high[i] = low[i] + L / 2;
    Vector row[L], next[L];
    for (int i = 0; i < L; ++i) row[i] = *(const Loose *)(from + i * ld);
#pragma GCC unroll 4
    for (int stage = 1; stage < L; stage *= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < L / 2; ++i) {
            next[2 * i] = __builtin_shuffle(row[i], row[i + L / 2], low);
            next[2 * i + 1] = __builtin_shuffle(row[i], row[i + L / 2], high);
        }
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) row[i] = next[i];
    }
    for (int i = 0; i < L; ++i) *(Loose *)(to + i * pitch) = row[i];
}
template <class F> static const bool squares = true;
#else
template <class F> static inline void transpose_square(const F *, Long, F *, Long) {}
template <class F> static const bool squares = false;
#endif

// to[p * lanes + w] = from[w * ld + p] for w < width, else 0
template <class F>
static void transpose(const F *from, Long ld, F *to, Long lanes, Long width, Long depth) {
    enum { L = Vec<F>::lanes };
    for (Long w = 0; w < lanes;) {
        Long p = 0;
        if (squares<F> && w + L <= width) {
            for (; p + L <= depth; p += L) transpose_square(from + w * ld + p, ld, to + p * lanes + w, lanes);
            for (Long i = w; i < w + L; ++i)
                for (Long rest = p; rest < depth; ++rest) to[rest * lanes + i] = from[i * ld + rest];
            w += L;
            continue;
        }
        for (; p < depth; ++p) to[p * lanes + w] = w < width ? from[w * ld + p] : F(0);
        ++w;
    }
}

static inline Long smaller(Long a, Long b) { return a < b ? a : b; }

// The next block begins at row p of op(b) and column j, or at the top of the next panel.
template <class F> static void look_ahead(Product<F> &g, Long j, Long p, Long most) {
    const Long panel = 2 * Vec<F>::lanes;
    if (p == g.k) p = 0, j += panel;
    const Long rows = smaller(g.k - p, most), cols = smaller(g.n - j, panel);
    g.next = cols > 0 ? g.b + (g.trans_b ? j * g.ldb + p : p * g.ldb + j) : nullptr;
    g.next_rows = g.trans_b ? cols : rows, g.next_cols = g.trans_b ? rows : cols;
}

template <class F> static void product(Product<F> g) {
    enum { LANES = Vec<F>::lanes, WIDTH = 2 * LANES };
    F packed[DEPTH * WIDTH] __attribute__((aligned(VECTOR)));
    g.c_row = g.ldc, g.next = nullptr;
    if (g.trans_a && !g.trans_b && g.n <= 12 && g.n < g.m) {  // c^T = b^T op(a)^T: full panels instead of a narrow one
        Product<F> turned = g;
        turned.a = g.b, turned.a_row = 1, turned.a_col = g.ldb;
        turned.b = g.a, turned.ldb = g.lda;
        turned.m = g.n, turned.n = g.m, turned.c_row = 1, turned.c_col = g.ldc;
        g = turned;
    }
    if (g.k == 0)
        for (Long i = 0; i < g.m; ++i)
            for (Long j = 0; j < g.n; ++j) g.c[i * g.c_row + j * g.c_col] = 0;
    const bool far = g.m >= 32 && g.ldb * sizeof(F) >= FAR;  // rows of b lie in different pages: gather them first
    const Long blocks = (g.k + DEPTH - 1) / DEPTH, most = blocks ? (g.k + blocks - 1) / blocks : 0;
    for (Long j = 0; j < g.n; j += WIDTH) {
        Long width = smaller(g.n - j, WIDTH), lanes = width > LANES ? (Long)WIDTH : (Long)LANES;
        for (Long p0 = 0; p0 < g.k; p0 += most) {
            Long depth = smaller(g.k - p0, most);
            const F *b = g.b + p0 * g.ldb + j;
            Long ldb = g.ldb;
            if (g.trans_b) {
                transpose(g.b + j * g.ldb + p0, g.ldb, packed, lanes, width, depth);
            } else if (width < lanes) {
                for (Long p = 0; p < depth; ++p)
                    for (Long w = 0; w < lanes; ++w) packed[p * lanes + w] = w < width ? b[p * g.ldb + w] : F(0);
            } else if (far) {
                for (Long p = 0; p < depth; ++p) memcpy(packed + p * lanes, b + p * g.ldb, lanes * sizeof(F));
            }
            if (g.trans_b || width < lanes || far) b = packed, ldb = lanes;
            if (far) look_ahead(g, j, p0 + depth, most);
            if (lanes == WIDTH) panel<F, 2>(g, b, ldb, p0, depth, j, width);
            else panel<F, 1>(g, b, ldb, p0, depth, j, width);
        }
    }
}
