// Replay of recorded operations, a small thread pool, and matrix products.  Built by build.py; needs no
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

enum LaunchWord { KIND, FUNCTION, BY_ROWS, SERIAL_BELOW, VALUES, ROWS, COLS };
enum GemmWord { G_IS_DOUBLE = 1, G_M, G_N, G_K, G_A, G_LDA, G_B, G_LDB, G_C, G_LDC, G_TRANS_A, G_TRANS_B, G_OWN };
enum { GEMM = 2 };  // KIND of a matrix product; anything else is a kernel

// Operations [first, end) that may run side by side: share i of `tasks` of one touches nothing that another share of
// any of them writes, so a thread runs share i of all of them without waiting (see phases.py).
struct Phase {
    Long first, end, tasks;
};

// All phases in order, `times` times.
struct Job {
    const Word *const *ops;
    const Phase *phases;
    Long n_phases;
    const char *table;
    Long row_bytes, k, advance, times;
    Long phase;
};

static void run_share(const Word *op, const void *values, Long k, Long task, Long tasks);

static void run_task(const Job &job, Long task) {
    const Phase &phase = job.phases[job.phase];
    const char *values = job.table + job.k * job.row_bytes;
    for (Long i = phase.first; i < phase.end; ++i) run_share(job.ops[i], values, job.k, task, phase.tasks);
}

static bool next_phase(Job *job) {  // false after the last one
    if (++job->phase < job->n_phases) return true;
    job->phase = 0;
    job->k += job->advance;
    return --job->times > 0;
}

// ---- thread pool ---------------------------------------------------------------------------------------------------
// A phase is cut into tasks that do not depend on who runs them.  A task is claimed by clearing its bit in `state`,
// which holds (generation << 38 | number of tasks << 32 | unclaimed tasks).  Each thread begins with its own range of
// tasks, so that rows stay in its caches, and goes on with those of others: a thread that another process keeps from its
// core delays nothing that it has not begun.  Whoever finishes a phase's last task publishes the next phase.

struct Pool;
struct Worker {
    Pool *pool;
    int number;
};

// Nanoseconds that once through the phases of a job takes, alone and together with all waiting; 0: not known.
struct Pace {
    const void *job;
    Long alone, together;
};

struct Pool {
    pthread_mutex_t lock, owner;
    pthread_cond_t wake;
    Job job;
    Worker worker[32];
    int workers, sleeping;
    bool linger;                   // spin for a moment before sleeping, because more work may follow at once
    Long alone_until, pause;       // nanoseconds, see hold_up
    Pace pace[16];
    alignas(64) Long state;
    alignas(64) Long left;         // tasks of the phase that are not finished
    bool stop, done;
};

static Pool *pool = nullptr;
static int pool_threads = 1;
static const int spins = 2000;  // about 50 us

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

// Publish the phase that `job` stands at, running those of one task here; `done` after the last.
static void publish(Pool *p) {
    for (;;) {
        Long tasks = p->job.phases[p->job.phase].tasks;
        if (tasks > 1) {
            p->left = tasks;
            Long generation = ((p->state >> 38) + 1) & 0xffffff;
            __atomic_store_n(&p->state, generation << 38 | tasks << 32 | ((1LL << tasks) - 1), __ATOMIC_SEQ_CST);
            if (__atomic_load_n(&p->sleeping, __ATOMIC_SEQ_CST)) {
                pthread_mutex_lock(&p->lock);
                pthread_cond_broadcast(&p->wake);
                pthread_mutex_unlock(&p->lock);
            }
            return;
        }
        run_task(p->job, 0);
        bool more = next_phase(&p->job);
        if (!more || (p->job.phase == 0 && __atomic_load_n(&p->stop, __ATOMIC_RELAXED))) break;
    }
    __atomic_store_n(&p->done, true, __ATOMIC_RELEASE);
}

// The next of thread `me`'s own tasks, else the one that its owner would come to last.
static int preferred(Long state, int me) {
    const Long unclaimed = (unsigned)state, tasks = state >> 32 & 63;
    const Long first = tasks * me / pool_threads, end = tasks * (me + 1) / pool_threads;
    const Long own = unclaimed & ((1LL << end) - (1LL << first));
    return own ? __builtin_ctzll(own) : 63 - __builtin_clzll(unclaimed);
}

static bool claim_and_run(Pool *p, int me) {
    Long seen = __atomic_load_n(&p->state, __ATOMIC_SEQ_CST);
    if (!(unsigned)seen) return false;
    int task = preferred(seen, me);
    const int order = __ATOMIC_SEQ_CST;
    if (!__atomic_compare_exchange_n(&p->state, &seen, seen & ~(1LL << task), false, order, order)) return true;
    run_task(p->job, task);
    if (__atomic_sub_fetch(&p->left, 1, __ATOMIC_ACQ_REL) == 0) {
        bool more = next_phase(&p->job);
        if (!more || (p->job.phase == 0 && __atomic_load_n(&p->stop, __ATOMIC_RELAXED)))
            __atomic_store_n(&p->done, true, __ATOMIC_RELEASE);
        else publish(p);
    }
    return true;
}

static void *work(void *given) {
    Pool *p = ((Worker *)given)->pool;
    const int me = ((Worker *)given)->number;
    for (;;) {
        while (claim_and_run(p, me)) {}
        bool more = false;
        for (int i = 0; !more && __atomic_load_n(&p->linger, __ATOMIC_RELAXED); ++i) {
            // a sleeping thread comes late on a busy core, so not while the job goes on
            if (i >= (__atomic_load_n(&p->done, __ATOMIC_RELAXED) ? spins : 100 * spins)) break;
            relax();
            more = (unsigned)__atomic_load_n(&p->state, __ATOMIC_RELAXED);
        }
        if (more) continue;
        pthread_mutex_lock(&p->lock);
        __atomic_add_fetch(&p->sleeping, 1, __ATOMIC_SEQ_CST);
        while ((unsigned)__atomic_load_n(&p->state, __ATOMIC_SEQ_CST) == 0) pthread_cond_wait(&p->wake, &p->lock);
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
    if (!p && posix_memalign((void **)&p, 64, sizeof(Pool)) == 0) {
        memset(p, 0, sizeof(Pool));
        pthread_mutex_init(&p->lock, nullptr);
        pthread_mutex_init(&p->owner, nullptr);
        pthread_cond_init(&p->wake, nullptr);
        pthread_attr_t detached;
        pthread_attr_init(&detached);
        pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
        for (int i = 1; i < pool_threads; ++i) {
            pthread_t thread;
            p->worker[i] = Worker{p, i};
            p->workers += pthread_create(&thread, &detached, work, &p->worker[i]) == 0;
        }
        pthread_attr_destroy(&detached);
        __atomic_store_n(&pool, p, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&creation);
    return p;
}

static void run_alone(Job *job) {  // once through the phases; the tasks stay the same, so the results do
    for (job->phase = 0; job->phase < job->n_phases; ++job->phase)
        for (Long task = 0; task < job->phases[job->phase].tasks; ++task) run_task(*job, task);
    job->phase = 0;
    job->k += job->advance;
    --job->times;
}

static Pace &pace_of(Pool *p, const Job &job) {
    const void *name = job.ops[0];
    Pace &pace = p->pace[(size_t)name / 64 % 16];
    if (pace.job != name) pace = Pace{name, 0, 0};
    return pace;
}

static void note(Long &mean, Long value) { mean = mean ? (mean + value) / 2 : value; }

// A task that another process keeps from its core makes everybody wait.  The work is then done alone for four times as
// long as the wait was, for longer if together went well for less time than alone before; unless it is known to be
// slower alone.
static void hold_up(Pool *p, const Pace &pace, Long waited) {
    const Long longest = 100000000;
    if (pace.alone && pace.together <= pace.alone) return;
    const Long time = now(), together = time - waited - p->alone_until;
    p->pause = together < p->pause ? 2 * p->pause : 4 * waited;
    if (p->pause > longest) p->pause = longest;
    p->alone_until = time + p->pause;
}

static void run_together(Pool *p, Job *job, bool linger) {
    const Long begin = now(), times = job->times;
    p->job = *job;
    p->stop = p->done = false;
    __atomic_store_n(&p->linger, linger, __ATOMIC_RELAXED);
    publish(p);
    Long waited = 0;
    while (!__atomic_load_n(&p->done, __ATOMIC_ACQUIRE)) {
        const Long start = now();
        while (claim_and_run(p, 0)) {}
        const Long end = now(), own = end - start, patience = own > 50000 ? 2 * own : 100000;
        bool late = false;
        for (int i = 0; !__atomic_load_n(&p->done, __ATOMIC_ACQUIRE); ++i) {
            if ((unsigned)__atomic_load_n(&p->state, __ATOMIC_RELAXED)) break;  // the next phase
            if (i < spins) relax();
            else sched_yield();
            if (!late && i % 256 == 255) late = now() - end > patience;
            if (late) __atomic_store_n(&p->stop, true, __ATOMIC_RELAXED);  // after this time through the phases
        }
        if (late) waited += now() - end;
    }
    *job = p->job;
    Pace &pace = pace_of(p, *job);
    note(pace.together, (now() - begin) / (times - job->times));
    if (waited) hold_up(p, pace, waited);
}

static void run_job(Job *job, bool linger) {
    Long tasks = 1;
    for (Long i = 0; i < job->n_phases; ++i) tasks = job->phases[i].tasks > tasks ? job->phases[i].tasks : tasks;
    Pool *p = tasks > 1 ? get_pool() : nullptr;
    bool mine = p && p->workers && pthread_mutex_trylock(&p->owner) == 0;  // else busy with another Python thread's
    while (job->times > 0) {
        const Long start = mine && p->alone_until ? now() : 0;
        if (mine && start >= p->alone_until) {
            run_together(p, job, linger);
            continue;
        }
        run_alone(job);
        if (mine) note(pace_of(p, *job).alone, now() - start);
    }
    if (mine) pthread_mutex_unlock(&p->owner);
}

// ---- matrix products -----------------------------------------------------------------------------------------------
// For small matrices, where a BLAS spends its time on packing and dispatch, and where there is no BLAS.
// Panels of `WIDTH` columns of op(b), zero-padded, times rows of op(a); sums run over k in order, whoever computes them.

#if defined(__AVX512F__)
enum { VECTOR = 64, MAX_ROWS = 8 };
#elif defined(__AVX__)
enum { VECTOR = 32, MAX_ROWS = 6 };
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

template <class F> static void blas_product(const Product<F> &g) {
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

// ---- operations ----------------------------------------------------------------------------------------------------

// Share `task` of `size` in multiples of `unit`, as even as can be.
static inline void share(Long size, Long unit, Long task, Long tasks, Long *from, Long *to) {
    Long units = (size + unit - 1) / unit;
    *from = units * task / tasks * unit;
    *to = units * (task + 1) / tasks * unit;
    if (*to > size) *to = size;
}

enum { ROW_UNIT = 8, COLUMN_UNIT = 64 };  // rows of a tile; no cache line is written by two threads

template <class F> static void gemm_share(const Word *op, Long task, Long tasks) {
    Long lda = op[G_LDA].i, ta = op[G_TRANS_A].i, from, to;
    Product<F> g = {(const F *)op[G_A].p, (const F *)op[G_B].p, (F *)op[G_C].p, op[G_M].i, op[G_N].i, op[G_K].i, lda,
                    op[G_LDB].i, op[G_LDC].i, ta != 0, op[G_TRANS_B].i != 0, ta ? 1 : lda, ta ? lda : 1};
    const Long panel = 2 * Vec<F>::lanes;
    if (tasks > 1 && ta && g.n >= panel * tasks) {  // a whole number of panels is the more even share
        share(g.n, panel, task, tasks, &from, &to);
        g.b += from * (g.trans_b ? g.ldb : 1), g.c += from, g.n = to - from;
    } else {
        share(g.m, ROW_UNIT, task, tasks, &from, &to);
        g.a += from * g.a_row, g.c += from * g.ldc, g.m = to - from;
    }
    if (to <= from && task) return;
    if (op[G_OWN].i || !Blas<F>::function) product(g);
    else blas_product(g);
}

static void run_share(const Word *op, const void *values, Long k, Long task, Long tasks) {
    if (op[KIND].i == GEMM) {
        if (op[G_IS_DOUBLE].i) gemm_share<double>(op, task, tasks);
        else gemm_share<float>(op, task, tasks);
        return;
    }
    Long rows = op[ROWS].i, cols = op[COLS].i, from, to;
    KernelFn run = (KernelFn)op[FUNCTION].p;
    if (tasks == 1) {
        run(op, values, k, 0, rows, 0, cols);
    } else if (op[BY_ROWS].i) {
        share(rows, ROW_UNIT, task, tasks, &from, &to);
        if (from < to) run(op, values, k, from, to, 0, cols);
    } else {
        share(cols, COLUMN_UNIT, task, tasks, &from, &to);
        if (from < to) run(op, values, k, 0, rows, from, to);
    }
}

extern "C" {

void gpumlp_setup(Long threads, void *sgemm, void *dgemm, Long fortran, void *get_threads, void *set_threads) {
    static bool once = false;
    if (!once) pthread_atfork(nullptr, nullptr, after_fork);
    once = true;
    pool_threads = threads < 32 ? (int)threads : 32;
    Blas<float>::function = sgemm;
    Blas<double>::function = dgemm;
    blas_is_fortran = fortran != 0;
    blas_get_threads = (int (*)())get_threads;
    blas_set_threads = (void (*)(int))set_threads;
}

// Whether `product` is at least as fast as any BLAS that we have met.
Long gpumlp_multiplies_fast() {
#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__))
    return 1;
#else
    return 0;
#endif
}

// One operation at once, k = 0.  Per-step values are stored `op[VALUES]` bytes after the start of `op`.
void gpumlp_run(const Word *op) {
    bool product = op[KIND].i == GEMM;
    Long size = op[ROWS].i * op[COLS].i, tasks = product || size < op[SERIAL_BELOW].i ? 1 : pool_threads;
    if (tasks > 1 && size >= 8 * op[SERIAL_BELOW].i) tasks = 4 * tasks < 32 ? 4 * tasks : 32;
    const char *values = product ? nullptr : (const char *)op + op[VALUES].i;
    if (tasks == 1) {
        run_share(op, values, 0, 0, 1);
        return;
    }
    Phase phase = {0, 1, tasks};
    Job job = {&op, &phase, 1, values, 0, 0, 0, 1, 0};
    run_job(&job, true);
}

// All phases `times` times; `k` is the number of the first repetition, and grows by `advance`.
void gpumlp_replay(const Word *const *ops, const Phase *phases, Long n_phases, const char *table, Long row_bytes,
                   Long k, Long advance, Long times, Long uses_blas) {
    if (uses_blas) hold_blas(1);
    Job job = {ops, phases, n_phases, table, row_bytes, k, advance, times, 0};
    // a BLAS that we cannot hold to one thread has threads with which lingering workers would compete
    run_job(&job, !uses_blas || blas_set_threads);
    if (uses_blas) hold_blas(-1);
}

}  // extern "C"
