// The replay of a plan: shares of its operations, and the functions that Python calls.
//
// text.py puts the files named below in place of the lines that include them; the whole is one source that needs no C++
// runtime.
#include "gemm.h"
#include "operations.h"
#include "pool.h"

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
    product(g);
}

static void run_share(const Word *op, const void *values, Long k, Long task, Long tasks) {
    Long from, to;
    if (op[KIND].i == MEMBERS) {
        share(op[M_COUNT].i, 1, task, tasks, &from, &to);
        for (Long j = from; j < to; ++j) run_share(((const Word *const *)op[M_OPS].p)[j], values, k, 0, 1);
        return;
    }
    if (op[KIND].i == REPLAYS) {  // jobs [starts[j], starts[j + 1]) one after the other
        const Long *starts = (const Long *)op[R_STARTS].p;
        share(op[R_COUNT].i, 1, task, tasks, &from, &to);
        for (Long i = starts[from]; i < starts[to]; ++i)
            for (Job job = ((const Job *)op[R_JOBS].p)[i]; job.times > 0;) run_alone(&job);
        return;
    }
    if (op[KIND].i == GEMM) {
        if (op[G_IS_DOUBLE].i) gemm_share<double>(op, task, tasks);
        else gemm_share<float>(op, task, tasks);
        return;
    }
    Long rows = op[ROWS].i, cols = op[COLS].i;
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

void gpumlp_setup(Long threads) {
    static bool once = false;
    if (!once) pthread_atfork(nullptr, nullptr, after_fork);
    once = true;
    pool_threads = threads < 32 ? (int)threads : 32;
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
    run_job(&job);
}

// All phases `times` times; `k` is the number of the first repetition, and grows by `advance`.
void gpumlp_replay(const Word *const *ops, const Phase *phases, Long n_phases, const char *table, Long row_bytes,
                   Long k, Long advance, Long times) {
    Job job = {ops, phases, n_phases, table, row_bytes, k, advance, times, 0};
    run_job(&job);
}

}  // extern "C"
