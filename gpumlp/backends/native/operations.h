// What an operation is: an array of 8-byte words (call.py packs them).  Kernels are separate shared libraries, called
// through the address in their operation.
#pragma once
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
enum GemmWord { G_IS_DOUBLE = 1, G_M, G_N, G_K, G_A, G_LDA, G_B, G_LDB, G_C, G_LDC, G_TRANS_A, G_TRANS_B };
enum MembersWord { M_COUNT = 1, M_OPS };
enum ReplaysWord { R_COUNT = 1, R_STARTS, R_JOBS };
// KIND of a matrix product, of operations of members, and of replays of plans; anything else is a kernel
enum { GEMM = 2, MEMBERS, REPLAYS };

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
