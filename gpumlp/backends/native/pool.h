// The thread pool: who runs which part of a plan, and how threads wait for each other.
//
// A phase is cut into tasks that do not depend on who runs them.  A task is claimed by clearing its bit in `state`,
// which holds (generation << 38 | number of tasks << 32 | unclaimed tasks).  Each thread begins with its own range of
// tasks, so that rows stay in its caches, and goes on with those of others: a thread that another process keeps from its
// core delays nothing that it has not begun.  Whoever finishes a phase's last task publishes the next phase.
#pragma once
#include "operations.h"

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
            __atomic_store_n(&p->left, tasks, __ATOMIC_RELAXED);
            Long generation = ((__atomic_load_n(&p->state, __ATOMIC_RELAXED) >> 38) + 1) & 0xffffff;
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
        for (int i = 0; !more; ++i) {  // more work may follow at once
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

static pthread_mutex_t creation = PTHREAD_MUTEX_INITIALIZER;

static void after_fork() {  // the child has none of the threads, and they may hold the locks: start afresh
    pool = nullptr;
    creation = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

static Pool *get_pool() {
    Pool *p = __atomic_load_n(&pool, __ATOMIC_ACQUIRE);
    if (p) return p;
    pthread_mutex_lock(&creation);
    p = __atomic_load_n(&pool, __ATOMIC_RELAXED);
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

static void run_together(Pool *p, Job *job) {
    const Long begin = now(), times = job->times;
    p->job = *job;
    __atomic_store_n(&p->stop, false, __ATOMIC_RELAXED);
    __atomic_store_n(&p->done, false, __ATOMIC_RELAXED);
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

static void run_job(Job *job) {
    Long tasks = 1;
    for (Long i = 0; i < job->n_phases; ++i) tasks = job->phases[i].tasks > tasks ? job->phases[i].tasks : tasks;
    Pool *p = tasks > 1 ? get_pool() : nullptr;
    bool mine = p && p->workers && pthread_mutex_trylock(&p->owner) == 0;  // else busy with another Python thread's
    while (job->times > 0) {
        const Long start = mine && p->alone_until ? now() : 0;
        if (mine && start >= p->alone_until) {
            run_together(p, job);
            continue;
        }
        run_alone(job);
        if (mine) note(pace_of(p, *job).alone, now() - start);
    }
    if (mine) pthread_mutex_unlock(&p->owner);
}
