// Replay of recorded operations, a small thread pool, and matrix products.  Built by native_build.py; needs no
// C++ runtime.
//
// An operation is an array of 8-byte words (see `Word` and the enums; native.py packs them).  Kernels are separate
// shared libraries, called through the address in their operation.
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef long long Long;

union Word {
    Long i;
    double d;
    void *p;
};

typedef void (*KernelFn)(const Word *op, const void *values, Long k, Long r0, Long r1, Long c0, Long c1);

enum Kind { MAP = 0, ROW = 1, GEMM = 2 };
enum LaunchWord { KIND, FUNCTION, TICK, SERIAL_BELOW, VALUES, ROWS, COLS };
enum GemmWord { G_IS_DOUBLE = 1, G_M, G_N, G_K, G_A, G_LDA, G_B, G_LDB, G_C, G_LDC, G_TRANS_A, G_TRANS_B, G_OWN };

// ---- thread pool ---------------------------------------------------------------------------------------------------
// Work is cut into chunks that do not depend on who runs them; a chunk is claimed by decrementing `state`, which holds
// (generation << 32 | chunks left).  Whoever claims a chunk keeps the job alive, so the job's fields are stable for it.
// The caller claims as well: a worker that sleeps through a short job delays nothing.

struct Job {
    void (*run)(const void *context, Long chunk, Long chunks);
    const void *context;
    Long chunks;
};

struct Pool {
    pthread_mutex_t lock, owner;
    pthread_cond_t wake;
    Job job;
    Long state, finished;
    int workers, sleeping;
    bool linger;  // spin for a moment before sleeping, because more work follows at once
    Long alone, pause;  // jobs that the caller still does alone; length of the next such stretch
};

static Pool *pool = nullptr;
static int pool_threads = 1;
static const int spins = 4000;  // about 40 us

static inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

static Long now() {  // nanoseconds
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static bool claim_and_run(Pool *p) {
    Long seen = __atomic_load_n(&p->state, __ATOMIC_SEQ_CST);
    if ((seen & 0xffffffffLL) == 0) return false;
    const int order = __ATOMIC_SEQ_CST;
    if (!__atomic_compare_exchange_n(&p->state, &seen, seen - 1, false, order, order)) return true;
    p->job.run(p->job.context, (seen & 0xffffffffLL) - 1, p->job.chunks);
    __atomic_add_fetch(&p->finished, 1, __ATOMIC_RELEASE);
    return true;
}

static void *work(void *given) {
    Pool *p = (Pool *)given;
    for (;;) {
        while (claim_and_run(p)) {}
        bool more = false;
        for (int i = 0; i < spins && !more && __atomic_load_n(&p->linger, __ATOMIC_RELAXED); ++i) {
            relax();
            more = __atomic_load_n(&p->state, __ATOMIC_RELAXED) & 0xffffffffLL;
        }
        if (more) continue;
        pthread_mutex_lock(&p->lock);
        __atomic_add_fetch(&p->sleeping, 1, __ATOMIC_SEQ_CST);
        while ((__atomic_load_n(&p->state, __ATOMIC_SEQ_CST) & 0xffffffffLL) == 0)
            pthread_cond_wait(&p->wake, &p->lock);
        __atomic_sub_fetch(&p->sleeping, 1, __ATOMIC_SEQ_CST);
        pthread_mutex_unlock(&p->lock);
    }
    return nullptr;
}

static int (*blas_get_threads)() = nullptr;
static void (*blas_set_threads)(int) = nullptr;
static int blas_users = 0, blas_threads = 1;  // see hold_blas
static pthread_mutex_t blas_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t creation = PTHREAD_MUTEX_INITIALIZER;

static void after_fork() {  // the child has none of the threads, and locks may be held by them: start afresh
    pool = nullptr;
    creation = blas_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    if (blas_users) blas_set_threads(blas_threads);
    blas_users = 0;
}

static Pool *get_pool() {
    Pool *p = __atomic_load_n(&pool, __ATOMIC_ACQUIRE);
    if (p) return p;
    pthread_mutex_lock(&creation);
    p = pool;
    if (!p) {
        p = (Pool *)calloc(1, sizeof(Pool));
        pthread_mutex_init(&p->lock, nullptr);
        pthread_mutex_init(&p->owner, nullptr);
        pthread_cond_init(&p->wake, nullptr);
        pthread_attr_t detached;
        pthread_attr_init(&detached);
        pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
        for (int i = 1; i < pool_threads; ++i) {
            pthread_t thread;
            p->workers += pthread_create(&thread, &detached, work, p) == 0;
        }
        pthread_attr_destroy(&detached);
        __atomic_store_n(&pool, p, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&creation);
    return p;
}

static void parallel(void (*run)(const void *, Long, Long), const void *context, Long chunks, bool linger) {
    Pool *p = chunks > 1 ? get_pool() : nullptr;
    bool mine = p && p->workers && pthread_mutex_trylock(&p->owner) == 0;  // else busy with another Python thread's
    if (!mine || p->alone > 0) {
        if (mine) {
            --p->alone;
            pthread_mutex_unlock(&p->owner);
        }
        for (Long chunk = 0; chunk < chunks; ++chunk) run(context, chunk, chunks);
        return;
    }
    Long start = now();
    p->job = Job{run, context, chunks};
    p->finished = 0;
    __atomic_store_n(&p->linger, linger, __ATOMIC_RELAXED);
    Long generation = (p->state >> 32) + 1;
    __atomic_store_n(&p->state, (generation & 0x7fffffff) << 32 | chunks, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&p->sleeping, __ATOMIC_SEQ_CST)) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
    while (claim_and_run(p)) {}
    Long own = now();
    for (int i = 0; __atomic_load_n(&p->finished, __ATOMIC_ACQUIRE) < chunks; ++i) {
        if (i < spins) relax();
        else sched_yield();
    }
    // A worker that another process keeps from its core makes everybody wait: do small jobs alone for a while, longer
    // each time it happens again.  The chunks stay the same, so the results do.
    Long waited = now() - own;
    if (waited > 100000 && waited > 2 * (own - start)) {
        p->pause = p->pause ? (p->pause < 20000 ? 2 * p->pause : p->pause) : 100;
        p->alone = p->pause;
    } else if (p->pause > 100) {
        --p->pause;
    }
    pthread_mutex_unlock(&p->owner);
}

// ---- matrix products -----------------------------------------------------------------------------------------------
// For small matrices, where a BLAS spends its time on packing and dispatch, and where there is no BLAS.
// Panels of `WIDTH` columns of op(b), zero-padded, times rows of op(a); sums run over k in order, whoever computes them.

#if defined(__AVX512F__)
enum { VECTOR = 64, MAX_ROWS = 8 };
#elif defined(__AVX__)
enum { VECTOR = 32, MAX_ROWS = 4 };
#else
enum { VECTOR = 16, MAX_ROWS = 4 };
#endif
enum { DEPTH = 256 };  // rows of a packed panel

template <class F> struct Vec {
    typedef F type __attribute__((vector_size(VECTOR)));
    typedef F unaligned __attribute__((vector_size(VECTOR), aligned(sizeof(F)), may_alias));
    enum { lanes = VECTOR / sizeof(F) };
};

template <class F> struct Product {
    const F *a, *b;
    F *c;
    Long m, n, k, lda, ldb, ldc;
    bool trans_a, trans_b;
    Long a_row, a_col;  // element (i, p) of op(a) is a[i * a_row + p * a_col]
};

template <class F, int R, int V>
static inline __attribute__((always_inline)) void
tile(const F *a, Long a_row, Long a_col, const F *b, Long ldb, F *c, Long ldc, Long depth, Long width, bool add) {
    typedef typename Vec<F>::type Vector;
    typedef typename Vec<F>::unaligned Loose;
    enum { L = Vec<F>::lanes };
    Vector sum[R][V] = {};
    for (Long p = 0; p < depth; ++p) {
        Vector right[V];
        for (int v = 0; v < V; ++v) right[v] = *(const Loose *)(b + p * ldb + v * L);
        for (int i = 0; i < R; ++i)
            for (int v = 0; v < V; ++v) sum[i][v] += a[i * a_row + p * a_col] * right[v];
    }
    for (int i = 0; i < R; ++i) {
        F *to = c + i * ldc;
        if (width == V * L) {
            for (int v = 0; v < V; ++v) {
                Loose *out = (Loose *)(to + v * L);
                *out = add ? Vector(*out) + sum[i][v] : sum[i][v];
            }
        } else {
            F row[V * L] __attribute__((aligned(VECTOR)));
            for (int v = 0; v < V; ++v) *(Vector *)(row + v * L) = sum[i][v];
            for (Long j = 0; j < width; ++j) to[j] = add ? to[j] + row[j] : row[j];
        }
    }
}

template <class F, int V>
static void panel(const Product<F> &g, Long r0, Long r1, const F *b, Long ldb, Long p0, Long depth, Long j,
                  Long width) {
    bool add = p0 > 0;
    const F *a = g.a + p0 * g.a_col;
    F *c = g.c + j;
    Long i = r0;
    for (; i + MAX_ROWS <= r1; i += MAX_ROWS)
        tile<F, MAX_ROWS, V>(a + i * g.a_row, g.a_row, g.a_col, b, ldb, c + i * g.ldc, g.ldc, depth, width, add);
    for (; i + 4 <= r1; i += 4)
        tile<F, 4, V>(a + i * g.a_row, g.a_row, g.a_col, b, ldb, c + i * g.ldc, g.ldc, depth, width, add);
    for (; i < r1; ++i)
        tile<F, 1, V>(a + i * g.a_row, g.a_row, g.a_col, b, ldb, c + i * g.ldc, g.ldc, depth, width, add);
}

template <class F> static void product_rows(const Product<F> &g, Long r0, Long r1) {
    enum { WIDTH = 2 * Vec<F>::lanes };
    F packed[DEPTH * WIDTH] __attribute__((aligned(VECTOR)));
    if (g.k == 0)
        for (Long i = r0; i < r1; ++i) memset(g.c + i * g.ldc, 0, g.n * sizeof(F));
    for (Long j = 0; j < g.n; j += WIDTH) {
        Long width = g.n - j < WIDTH ? g.n - j : (Long)WIDTH;
        Long lanes = width > Vec<F>::lanes ? (Long)WIDTH : (Long)Vec<F>::lanes;
        for (Long p0 = 0; p0 < g.k; p0 += DEPTH) {
            Long depth = g.k - p0 < DEPTH ? g.k - p0 : (Long)DEPTH;
            const F *b = g.b + p0 * g.ldb + j;
            Long ldb = g.ldb;
            if (g.trans_b) {
                for (Long w = 0; w < width; ++w)
                    for (Long p = 0; p < depth; ++p) packed[p * lanes + w] = g.b[(j + w) * g.ldb + p0 + p];
                for (Long w = width; w < lanes; ++w)
                    for (Long p = 0; p < depth; ++p) packed[p * lanes + w] = 0;
            } else if (width < lanes) {
                for (Long p = 0; p < depth; ++p)
                    for (Long w = 0; w < lanes; ++w) packed[p * lanes + w] = w < width ? b[p * g.ldb + w] : F(0);
            }
            if (g.trans_b || width < lanes) b = packed, ldb = lanes;
            if (lanes == WIDTH) panel<F, 2>(g, r0, r1, b, ldb, p0, depth, j, width);
            else panel<F, 1>(g, r0, r1, b, ldb, p0, depth, j, width);
        }
    }
}

template <class F> static void product_chunk(const void *context, Long chunk, Long chunks) {
    const Product<F> &g = *(const Product<F> *)context;
    Long rows = ((g.m + chunks - 1) / chunks + MAX_ROWS - 1) / MAX_ROWS * MAX_ROWS;
    Long r0 = chunk * rows, r1 = r0 + rows < g.m ? r0 + rows : g.m;
    if (r0 < r1) product_rows(g, r0, r1);
}

// cblas takes integers of 32 or 64 bits.  64-bit ones are passed to both: sizes are small, and the calling
// conventions of 64-bit Linux give every integer argument a slot of 8 bytes, of which a callee with 32-bit integers
// reads the low half.
template <class F> struct Blas {
    typedef void (*Cblas)(Long order, Long ta, Long tb, Long m, Long n, Long k, F alpha, const F *a, Long lda, const F *b,
                          Long ldb, F beta, F *c, Long ldc);
    // Fortran's takes pointers; little-endian numbers of 8 bytes can be read as numbers of 4
    typedef void (*Fortran)(const char *ta, const char *tb, const Long *m, const Long *n, const Long *k, const F *alpha,
                            const F *a, const Long *lda, const F *b, const Long *ldb, const F *beta, F *c, const Long *ldc);
    static void *function;
};
template <class F> void *Blas<F>::function = nullptr;
static bool blas_is_fortran = false;

template <class F> static void blas_chunk(const void *context, Long chunk, Long chunks) {
    Product<F> g = *(const Product<F> *)context;
    Long size = g.m >= g.n ? g.m : g.n, step = size;
    if (chunks > 1) step = ((size + chunks - 1) / chunks + 15) / 16 * 16;
    Long from = chunk * step, count = from + step < size ? step : size - from;
    if (count < 0 || (count == 0 && chunk)) return;
    if (g.m >= g.n) g.a += from * g.a_row, g.c += from * g.ldc, g.m = count;
    else g.b += from * (g.trans_b ? g.ldb : 1), g.c += from, g.n = count;
    F one = 1, zero = 0;
    if (blas_is_fortran)  // column-major: c^T = op(b)^T op(a)^T
        ((typename Blas<F>::Fortran)Blas<F>::function)(g.trans_b ? "T" : "N", g.trans_a ? "T" : "N", &g.n, &g.m, &g.k, &one,
                                                       g.b, &g.ldb, g.a, &g.lda, &zero, g.c, &g.ldc);
    else
        ((typename Blas<F>::Cblas)Blas<F>::function)(101, g.trans_a ? 112 : 111, g.trans_b ? 112 : 111, g.m, g.n, g.k, one,
                                                     g.a, g.lda, g.b, g.ldb, zero, g.c, g.ldc);
}

// While plans run, an OpenBLAS is held to one thread and its products are split over our pool.  Its own threads yield
// in a loop for a while after every product, and a product waits for all of them: on a busy machine that takes
// milliseconds.

static void hold_blas(int change) {
    if (!blas_set_threads) return;
    pthread_mutex_lock(&blas_lock);
    if (change > 0 && blas_users == 0) {
        blas_threads = blas_get_threads();
        blas_set_threads(1);
    }
    blas_users += change;
    if (blas_users == 0) blas_set_threads(blas_threads);
    pthread_mutex_unlock(&blas_lock);
}

template <class F> static void gemm(const Word *op, bool linger) {
    Long lda = op[G_LDA].i, ta = op[G_TRANS_A].i;
    Product<F> g = {(const F *)op[G_A].p, (const F *)op[G_B].p, (F *)op[G_C].p, op[G_M].i, op[G_N].i, op[G_K].i, lda,
                    op[G_LDB].i, op[G_LDC].i, ta != 0, op[G_TRANS_B].i != 0, ta ? 1 : lda, ta ? lda : 1};
    bool own = op[G_OWN].i || !Blas<F>::function;
    Long chunks = g.m * g.n * g.k >= (1 << 19) ? pool_threads : 1;
    if (!own && blas_users == 0) chunks = 1;
    else if (!own && chunks > blas_threads) chunks = blas_threads;
    parallel(own ? product_chunk<F> : blas_chunk<F>, &g, chunks, linger);
}

// ---- operations ----------------------------------------------------------------------------------------------------

struct Call {
    const Word *op;
    const void *values;
    Long k;
    bool by_rows;
};

static void call_chunk(const void *context, Long chunk, Long chunks) {
    const Call &call = *(const Call *)context;
    Long rows = call.op[ROWS].i, cols = call.op[COLS].i, size = call.by_rows ? rows : cols;
    Long step = (size + chunks - 1) / chunks;
    if (!call.by_rows) step = (step + 63) / 64 * 64;  // no cache line is written by two threads
    Long from = chunk * step, to = from + step < size ? from + step : size;
    if (from >= to) return;
    KernelFn run = (KernelFn)call.op[FUNCTION].p;
    if (call.by_rows) run(call.op, call.values, call.k, from, to, 0, cols);
    else run(call.op, call.values, call.k, 0, rows, from, to);
}

static void launch(const Word *op, const void *values, Long k, bool linger) {
    Long rows = op[ROWS].i, cols = op[COLS].i;
    Call call = {op, values, k, op[KIND].i == ROW || rows >= 4 * pool_threads};
    Long most = call.by_rows ? rows : cols / 64;
    Long chunks = rows * cols < op[SERIAL_BELOW].i ? 1 : pool_threads;
    parallel(call_chunk, &call, chunks < most ? chunks : (most > 1 ? most : 1), linger);
}

static void run_gemm(const Word *op, bool linger) {
    if (op[G_IS_DOUBLE].i) gemm<double>(op, linger);
    else gemm<float>(op, linger);
}

extern "C" {

void gpumlp_setup(Long threads, void *sgemm, void *dgemm, Long fortran, void *get_threads, void *set_threads) {
    static bool once = false;
    if (!once) pthread_atfork(nullptr, nullptr, after_fork);
    once = true;
    pool_threads = (int)threads;
    Blas<float>::function = sgemm;
    Blas<double>::function = dgemm;
    blas_is_fortran = fortran != 0;
    blas_get_threads = (int (*)())get_threads;
    blas_set_threads = (void (*)(int))set_threads;
}

// One operation at once, k = 0.  Per-step values are stored `op[VALUES]` bytes after the start of `op`.
void gpumlp_run(const Word *op) {
    if (op[KIND].i == GEMM) run_gemm(op, false);
    else launch(op, (const char *)op + op[VALUES].i, 0, true);
}

// All operations `times` times.  `step` and ticks: see Launch and Steps in base.py.
void gpumlp_replay(const Word *const *ops, Long count, Long *step, const char *table, Long row_bytes, Long times) {
    hold_blas(1);
    for (Long t = 0; t < times; ++t)
        for (Long i = 0; i < count; ++i) {
            const Word *op = ops[i], *next = ops[i + 1 < count ? i + 1 : 0];
            // a BLAS that we cannot hold to one thread has threads with which lingering workers would compete
            bool linger = next[KIND].i != GEMM || next[G_OWN].i || blas_set_threads;
            if (op[KIND].i == GEMM) {
                run_gemm(op, linger);
                continue;
            }
            Long k = op[TICK].i == 1 ? step[0] : step[1] - 1;
            launch(op, table + k * row_bytes, k, linger);
            if (op[TICK].i == 1) step[1] = k + 1;
            else if (op[TICK].i == 2) step[0] = step[1];
        }
    hold_blas(-1);
}

}  // extern "C"
